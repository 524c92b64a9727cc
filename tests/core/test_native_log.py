import json
import os
import re
import subprocess
import sys

import pytest

from stages.core import paths
from stages.core.params import parse_params
from stages.gate import gate
from stages.ingest import ingest
from stages.split import split
from stages.validate import validate
from tests.conftest import ROOT, with_overrides

# Every line of a run is one of ours, or part of a progress bar.
OURS = re.compile(r"[IW] [a-z_.]+: .+|.*\|.*")


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
def test_a_run_prints_lines_of_this_project_alone(tiny_values):
    values = with_overrides(tiny_values, {"train.gradient_log_interval": 2})
    paths.PARAMS.write_text(json.dumps(values))
    paths.LOCK.symlink_to(ROOT / paths.LOCK)
    params = parse_params(values)
    ingest(params.ingest)
    validate(params.validate_)
    split(params.split)
    for stage in ("train", "evaluate", "export"):
        if stage == "export":
            gate(params.gate)
        done = run("-m", f"stages.{stage}")
        assert done.returncode == 0, done.stderr
        foreign = [x for x in done.stderr.splitlines() if not OURS.fullmatch(x)]
        assert not foreign
        assert not done.stdout


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


def test_an_error_of_tensorflow_shows():
    done = run(
        "-c",
        "import stages.nn\nimport tensorflow as tf\ntf.strings.to_number('x')\n",
    )
    assert done.returncode == 1
    assert "InvalidArgumentError" in done.stderr
    assert "absl::InitializeLog" not in done.stderr
