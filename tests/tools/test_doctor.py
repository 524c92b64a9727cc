import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core import paths
from stages.core.errors import NetworkError
from stages.datasets.sources import kaggle
from stages.tools import doctor
from stages.tools.doctor import checkout, data, machine
from stages.tools.doctor.finding import BROKEN, NOTE, OK
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Nobody's credentials."""
    for name in ("API_TOKEN", "USERNAME", "KEY", "CONFIG_DIR"):
        monkeypatch.delenv(f"KAGGLE_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def git(*words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.chdir(root)
    paths.PLAN.touch()
    Path("dvc.lock").touch()
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/config").touch()
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "a")
    return root


def test_packages_against_the_lock(tmp_path):
    import numpy

    lock = tmp_path / "lock"
    lock.write_text(
        f"NumPy=={numpy.__version__} ; python_full_version < '4' \\\n"
        "    --hash=sha256:00\n"
        "moon==1 ; sys_platform == 'win32' \\\n"
    )
    assert machine.packages(lock).state == OK
    assert machine.packages(lock).found.startswith("all 1 are")
    lock.write_text("numpy==0.1\nmoon-dust==2\n")
    finding = machine.packages(lock)
    assert finding.state == BROKEN
    assert f"numpy {numpy.__version__} instead of 0.1" in finding.found
    assert "moon-dust not installed instead of 2" in finding.found
    assert "make setup" in finding.to_do
    assert machine.packages(tmp_path / "none").state == BROKEN


def test_the_projects_own_lock_is_read_whole():
    text = (ROOT / paths.LOCK).read_text()
    found = dict(machine.locked(text))
    assert {"tensorflow", "dvc", "numpy"} <= found.keys()
    assert "pywin32" not in found or sys.platform == "win32"


def test_the_interpreter(monkeypatch):
    assert machine.python().state == OK
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    assert machine.python().state == BROKEN
    assert "3.12.1 instead of 3.11" in machine.python().found
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert machine.bytecode().state == NOTE
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
    assert machine.bytecode().state == OK


def test_memory_and_disk_against_params(tiny_params, monkeypatch):
    train = tiny_params().train
    assert machine.memory(train).state == OK
    article = train.model_copy(
        update={"image_size": 256, "filters": [64, 128, 256, 512, 1024]}
    ).model_copy(update={"batch_size": 16})
    # The article's network is known to need more than 6 GiB at this batch.
    assert 6 < machine.training_bytes(article) / machine.GIB < 12
    monkeypatch.setattr(machine, "NVIDIA", ())
    huge = article.model_copy(update={"batch_size": 10_000})
    assert machine.memory(huge).state == NOTE
    assert "train.batch_size" in machine.memory(huge).to_do
    assert machine.disk(1).state == OK
    assert machine.disk(2**60).state == BROKEN


def test_the_gpu_is_told_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "NVIDIA", ())
    assert machine.devices().found.startswith("none")
    (tmp_path / "driver").touch()
    monkeypatch.setattr(machine, "NVIDIA", (tmp_path / "driver",))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(machine, "_installed", lambda: iter(["numpy"]))
    assert (machine.devices().state, machine.devices().found[:9]) == (NOTE, "an NVIDIA")
    monkeypatch.setattr(machine, "_installed", lambda: iter(["nvidia-cudnn-cu12"]))
    assert machine.devices().state == OK


def test_what_the_data_take(tiny_params, tmp_path):
    phantom = data.bytes_needed(tiny_params().ingest)
    params = {"ingest.source": "folder", "ingest.folder": str(tmp_path / "in")}
    assert data.bytes_needed(tiny_params(**params).ingest) == 0
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.png").write_bytes(b"12345")
    assert data.bytes_needed(tiny_params(**params).ingest) == 10
    kaggle_params = tiny_params(**{"ingest.source": "kaggle"}).ingest
    assert data.bytes_needed(kaggle_params) > phantom > 0


SECRET = "KGAT_0123456789secret"


def test_credentials_by_source_never_by_value(tiny_params, home, monkeypatch):
    from kagglehub.config import get_kaggle_credentials

    params = tiny_params(**{"ingest.source": "kaggle"}).ingest

    def finding():
        found = data.credentials(params)
        assert SECRET not in repr(found)
        # kagglehub sees what we say it sees.
        assert bool(get_kaggle_credentials()) == (found.state != BROKEN)
        return found

    assert data.credentials(tiny_params().ingest).state == OK
    assert (finding().state, finding().found) == (BROKEN, "no credentials")
    assert "KAGGLE_API_TOKEN" in finding().to_do

    folder = home / ".kaggle"
    folder.mkdir(parents=True)
    # kagglehub has looked up the home before this test gave it another.
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
    stored = folder / "kaggle.json"
    stored.write_text(json.dumps({"username": "u", "key": SECRET}))
    stored.chmod(0o644)
    assert finding().state == NOTE
    assert f"chmod 600 {stored}" in finding().to_do
    stored.chmod(0o600)
    assert finding().found == f"credentials from {stored}"
    monkeypatch.setenv("KAGGLE_USERNAME", "u")
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    assert finding().found == "credentials from KAGGLE_USERNAME and KAGGLE_KEY"
    (folder / "access_token").write_text(SECRET)
    (folder / "access_token").chmod(0o600)
    assert finding().found == f"credentials from {folder / 'access_token'}"
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    assert finding().found == "credentials from KAGGLE_API_TOKEN"


def test_a_broken_kaggle_json_is_not_quoted(tiny_params, home):
    (home / ".kaggle").mkdir(parents=True)
    stored = home / ".kaggle" / "kaggle.json"
    stored.touch(mode=0o600)
    stored.write_text(json.dumps({"token": SECRET}))
    found = data.credentials(tiny_params(**{"ingest.source": "kaggle"}).ingest)
    assert (found.state, SECRET in repr(found)) == (BROKEN, False)
    stored.write_text("{" + SECRET)
    found = data.credentials(tiny_params(**{"ingest.source": "kaggle"}).ingest)
    assert (found.state, SECRET in repr(found)) == (BROKEN, False)


def test_the_newest_version(tiny_params, monkeypatch):
    params = tiny_params().ingest
    pinned = params.kaggle.version
    monkeypatch.setattr(kaggle, "newest_version", lambda _: pinned + 1)
    assert data.newest(params).state == NOTE
    assert f"ingest.kaggle.version={pinned + 1}" in data.newest(params).to_do
    monkeypatch.setattr(kaggle, "newest_version", lambda _: pinned)
    assert data.newest(params).state == OK

    def silent(_):
        raise NetworkError("no network")

    monkeypatch.setattr(kaggle, "newest_version", silent)
    assert data.newest(params).state == NOTE
    wanted = tiny_params(**{"ingest.source": "kaggle"}).ingest
    assert (data.newest(wanted).state, data.newest(wanted).to_do) == (
        BROKEN,
        "no network",
    )


def test_git_and_the_record(repository, tmp_path, monkeypatch):
    assert checkout.git().state == OK
    assert checkout.record().state == OK
    Path("dvc.lock").write_text("stages: {}")
    assert (checkout.record().state, "commit it" in checkout.record().to_do) == (
        NOTE,
        True,
    )
    git("commit", "--quiet", "--all", "--message", "b")
    git("clone", "--quiet", "--depth", "1", f"file://{repository}", "../shallow")
    monkeypatch.chdir("../shallow")
    assert checkout.git().to_do == "git fetch --unshallow"
    Path("dvc.lock").unlink()
    assert "make repro" in checkout.record().to_do
    monkeypatch.chdir(tmp_path)
    assert checkout.git().state == BROKEN


def states(findings) -> list[str]:
    return [finding.state for finding in findings]


def test_locks_held_left_behind_and_cut_short(repository):
    assert states(checkout.locks()) == [OK]
    lock = Path(".dvc/tmp/lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (held,) = checkout.locks()
    assert (held.state, held.found) == (NOTE, "a dvc command runs here now")
    assert states(checkout.locks()) == [OK]  # the file alone is no lock

    marks = Path(".dvc/tmp/rwlock")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid, word in ((os.getpid(), "in use by process"), (gone.pid, "killed dvc")):
        marks.write_text(json.dumps({"read": {"a": [{"pid": pid, "cmd": "dvc"}]}}))
        (finding,) = checkout.locks()
        assert (finding.state, word in finding.found) == (NOTE, True)
    for broken in ('{"read": {"a"', "[]", '{"write": {"a": 1}}'):
        marks.write_text(broken)
        (finding,) = checkout.locks()
        assert (finding.state, finding.to_do) == (BROKEN, f"rm {marks}")
    marks.unlink()
    Path(".git/index.lock").touch()
    (finding,) = checkout.locks()
    assert (finding.state, "rm .git/index.lock" in finding.to_do) == (BROKEN, True)


def test_leftovers(repository):
    assert checkout.leftovers().state == OK
    (paths.WORK / "partial").mkdir(parents=True)
    assert checkout.leftovers().state == OK
    (paths.WORK / "partial" / "a").write_text("half")
    assert checkout.leftovers().state == NOTE
    assert checkout.leftovers().found.startswith("1 files of 0 MiB")


def test_an_altered_object_of_the_cache(repository, monkeypatch):
    monkeypatch.setattr(checkout, "_run", lambda *words: ".dvc/cache")
    folder = Path(".dvc/cache/files/md5/90")
    folder.mkdir(parents=True)
    sound = folder / "0150983cd24fb0d6963f7d28e17f72"  # of b"abc"
    sound.write_bytes(b"abc")
    listing = Path(".dvc/cache/files/md5/d7/51713988987e9331980363e24189ce.dir")
    listing.parent.mkdir()
    listing.write_bytes(b"[]")
    assert checkout.cache().found == "all 2 files are whole"
    sound.write_bytes(b"abd")
    finding = checkout.cache()
    assert finding.state == BROKEN
    assert str(sound) in finding.found
    assert str(listing) not in finding.found


def test_remotes_by_name_only(monkeypatch):
    answer = "store\thttps://user:secret@example.org/dvc  (default)\nother  /mnt/dvc"
    told = (
        "Supports:\n\thttp (aiohttp = 3.14),\n\thttps (aiohttp = 3.14)\nConfig:\n\tssh"
    )

    def run(*words):
        return told if words[-1] == "doctor" else answer

    monkeypatch.setattr(checkout, "_run", run)
    assert checkout.remote().found == "store, other"
    answer += "\nthird  ssh://user:secret@example.org/dvc"
    finding = checkout.remote()
    assert finding.state == BROKEN
    assert finding.found == "third is ssh://, which this environment cannot reach"
    assert finding.to_do.startswith("pip install 'dvc[ssh]'")
    monkeypatch.setattr(checkout, "_run", lambda *words: "")
    assert checkout.remote().state == NOTE
    monkeypatch.setattr(checkout, "_run", lambda *words: None)
    assert checkout.remote().state == BROKEN


def test_the_command_names_what_is_broken(repository):
    """A real run: the params are missing, everything else is told all the same."""
    done = subprocess.run(
        [sys.executable, "-m", "stages.tools.doctor"],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": "."},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith("BROKEN  params") for line in lines)
    assert any(line.startswith("ok      git ") for line in lines)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "params" in last


def test_it_goes_through_every_check(repository, tiny_values, monkeypatch):
    from ruamel.yaml import YAML

    YAML().dump(tiny_values, paths.PARAMS)
    monkeypatch.setattr(kaggle, "newest_version", lambda _: 1)
    monkeypatch.setattr(checkout, "_run", lambda *words: "")
    names = [finding.name for finding in doctor.examine(online=True, cache=True)]
    assert names == [
        "python", "bytecode", "packages", "gpu", "params", "memory", "disk",
        "kaggle", "version", "git", "record", "remote", "locks", "leftovers", "cache",
    ]  # fmt: skip
