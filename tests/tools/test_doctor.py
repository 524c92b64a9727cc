import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core import paths
from stages.tools import doctor
from stages.tools.doctor import BROKEN, NOTE, OK
from tests.conftest import ROOT
from tests.plan import Plan


@pytest.fixture
def plan(tmp_path, tiny_values, monkeypatch):
    """A repository with the project's plan and lock, and a small dvc.lock."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    YAML().dump(tiny_values, paths.PARAMS)
    Path("dvc.lock").write_text("schema: '2.0'\n")
    return Plan.small(tmp_path, YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])


def test_a_sound_checkout(plan, capsys):
    doctor.run()
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith(BROKEN)]
    names = [line.split()[1] for line in lines if not line.startswith(" ")]
    assert names == [
        "packages", "gpu", "params", "memory", "disk", "folder", "kaggle", "git",
        "dvc.lock", "remote", "leftovers",
    ]  # fmt: skip


def test_each_problem_is_named_and_the_checks_go_on(plan):
    """As in a container: no home folder, no user name, and a merge that failed."""
    Path("dvc.lock").write_text("<<<<<<< a\nx: 1\n=======\nx: 2\n>>>>>>> b\n")
    paths.PARAMS.write_text("ingest: 1\n")
    lock = Path("requirements.lock")
    text = lock.read_text().replace("\ntabulate==", "\ntabulate==0.0.")
    lock.write_text(text)
    code = (
        "from stages.core.errors import run; from stages.tools import doctor\n"
        "run(doctor.run)"
    )
    done = subprocess.run(
        ["unshare", "-U", "--map-user=12345", sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("this system has no user namespaces")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    broken = [x.split()[1] for x in done.stdout.splitlines() if x.startswith(BROKEN)]
    assert broken == ["packages", "params", "dvc.lock"], done.stdout
    assert "the markers of a merge conflict" in done.stdout


def test_memory_and_disk_against_params(section):
    assert doctor.memory(section("train")).state == OK
    assert doctor.memory(section("train", batch_size=10_000_000)).state == NOTE
    assert doctor.disk(section("ingest")).state == OK
    huge = section("ingest", **{"phantom.pairs": 10**12})
    assert doctor.disk(huge).state == BROKEN


def test_a_pipe_that_dvc_would_wait_for_is_named(section, tmp_path):
    params = section("ingest", source="folder", folder=str(tmp_path))
    assert doctor.folder(params).state == OK
    os.mkfifo(tmp_path / "film.png")
    found = doctor.folder(params)
    assert found.state == BROKEN
    assert "film.png' in ingest.folder is neither a file" in found.found


SECRET = "KGAT_0123456789secret"


def test_kaggle_credentials_are_never_printed(section, monkeypatch, tmp_path):
    params = section("ingest", source="kaggle")
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / ".kaggle"))
    found = doctor.kaggle(params)
    assert (found.state, "KAGGLE_API_TOKEN" in found.to_do) == (BROKEN, True)
    stored = tmp_path / ".kaggle" / "kaggle.json"
    stored.parent.mkdir()
    stored.write_text(json.dumps({"username": "u", "key": SECRET}))
    stored.chmod(0o644)
    found = doctor.kaggle(params)
    assert (found.state, found.to_do) == (NOTE, f"chmod 600 {stored}")
    stored.chmod(0o600)
    found = doctor.kaggle(params)
    assert (found.state, SECRET in repr(found)) == (OK, False)


def test_git_and_the_record(plan, tmp_path, monkeypatch):
    assert doctor.checkout().state == doctor.record().state == OK
    Path("dvc.lock").write_text("stages: {}")
    assert (doctor.record().state, doctor.record().found) == (
        NOTE,
        "differs from the last commit",
    )
    plan.commit("a")
    plan.git("clone", "-q", "--depth", "1", f"file://{plan.root}", "shallow")
    monkeypatch.chdir("shallow")
    assert doctor.checkout().to_do == "git fetch --unshallow"
    Path("dvc.lock").unlink()
    assert "make repro" in doctor.record().to_do
    monkeypatch.chdir("/")
    assert doctor.checkout().state == BROKEN


def test_remotes_by_name_only(plan):
    remote = "['remote \"{}\"']\n    url = {}\n"
    config = remote.format("store", "/mnt/dvc")
    config += remote.format("far", "s3://key:secret@bucket")
    Path(".dvc/config").write_text(config)
    assert doctor.remote().found == "store, far"
    config += remote.format("third", "ssh://user:secret@example.org/dvc")
    Path(".dvc/config").write_text(config)
    found = doctor.remote()
    assert found.state == BROKEN
    assert found.found == "third is ssh://, which this environment cannot reach"
    assert found.to_do == "pip install 'dvc[ssh]'"


def test_leftovers():
    (paths.WORK / "partial").mkdir(parents=True)
    assert doctor.leftovers().state == OK
    (paths.WORK / "partial" / "a").write_text("half")
    assert doctor.leftovers().found.startswith("1 files of 0 MiB")
