import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults import clones

# Every line is one of ours, part of a progress bar or of the gate's table, or DVC's.
DVC = r"(Running|Generating|Updating|To track|To enable|Use `dvc|>|\s+git|\s+dvc) ?.*"
OURS = re.compile(rf"[IW] [a-z_.]+: .+|.*\|.*|(metric|dice\.mean) .*|{DVC}|")


def run(*command):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, *command],
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.slow
def test_a_run_prints_lines_of_this_project_and_of_dvc_alone(finished):
    logs = sorted(clones.logs(finished).glob("*.log"))
    assert len(logs) == 7
    lines = [line for log in logs for line in log.read_text("utf-8").splitlines()]
    assert [line for line in lines if not OURS.fullmatch(line)] == []


def test_other_lines_pass_and_so_do_the_last_words_of_a_crash():
    done = run(
        "-c",
        "import os\n"
        "from stages.core.native_log import without_notices\n"
        "os.write(2, b'before\\n')\n"
        "with without_notices():\n"
        "    os.write(2, b'I0 port.cc] oneDNN custom operations are on. You may\\n')\n"
        "    os.write(2, b'E0 cuda_dnn.cc] no memory \\xff\\n')\n"
        "os.write(2, b'between\\n')\n"
        "with without_notices():\n"
        "    os.write(2, b'F0 cpu_feature_guard.cc] needs AVX\\n')\n"
        "    os.abort()\n",
    )
    assert done.returncode < 0
    lines = [line.split()[0] for line in done.stderr.splitlines()]
    assert lines == ["before", "E0", "between", "F0"]
