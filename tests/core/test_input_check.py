import os
import subprocess
import sys

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core import input_check, paths
from stages.core.errors import PipelineError
from tests.conftest import ROOT


@pytest.fixture
def checkout(tmp_path):
    """Two inputs, a folder and a file, as DVC itself records them."""
    (tmp_path / "data" / "a" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a" / "x.bin").write_bytes(b"\0\1" * 500)
    (tmp_path / "data" / "a" / "b" / "é.txt").write_text("é\n", encoding="utf-8")
    (tmp_path / "data" / "one.json").write_text("{}\r\n")
    plan = {
        "stages": {
            "make": {
                "cmd": "true",
                "outs": ["data/a"],
                "metrics": [{"data/one.json": {"cache": False}}],
            },
            "read": {"cmd": "true", "deps": ["data/a", "data/one.json", "notes.md"]},
        }
    }
    with (tmp_path / "dvc.yaml").open("w") as file:
        YAML().dump(plan, file)
    (tmp_path / "notes.md").write_text("no output of a stage")
    with Repo.init(".", no_scm=True) as repo:
        repo.commit("make", force=True)
    return tmp_path


def test_inputs_are_what_dvc_recorded_and_a_change_is_told(checkout):
    input_check.check_inputs("read")
    input_check.check_inputs("make")

    # A bit flips, and the file's time does not tell.
    path = paths.DATA / "a" / "x.bin"
    before = path.stat()
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(PipelineError, match=r"data/a, which read reads.*dvc\.lock"):
        input_check.check_inputs("read")
    # Now DVC will look.
    assert path.stat().st_mtime_ns != before.st_mtime_ns
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    (paths.DATA / "one.json").unlink()
    with pytest.raises(PipelineError, match=r"one\.json, which read reads, is missing"):
        input_check.check_inputs("read")


def test_a_damaged_cache_object_loses_its_protection(checkout):
    damaged = sound = None
    for path in (checkout / ".dvc" / "cache" / "files" / "md5").rglob("*"):
        if path.is_file() and path.stat().st_size == 1000:
            damaged = path
        elif path.is_file():
            sound = path
    damaged.chmod(0o644)
    damaged.write_bytes(b"\1" + damaged.read_bytes()[1:])
    damaged.chmod(0o444)
    (paths.DATA / "a" / "x.bin").write_bytes(damaged.read_bytes())
    with pytest.raises(PipelineError, match="DVC cache"):
        input_check.check_inputs("read")
    assert damaged.stat().st_mode & 0o200
    assert not sound.stat().st_mode & 0o200


def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path):
    stage = (
        f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r});"
        "os.environ['DVC_STAGE'] = 'train'; from stages.core import input_check;"
        "input_check.by_dvc(); print('begun', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {stage!r}]).wait()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "begun\n"
    run.kill()
    run.wait()
    # The pipe closes when the last of them has ended, long before the 60 s.
    assert run.stdout.read() == ""
