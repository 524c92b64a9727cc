"""The checkout: Git, DVC's remote, record, locks and cache, half-written outputs."""

import fcntl
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from tqdm import tqdm

from stages.core import paths
from stages.tools.doctor.finding import BROKEN, NOTE, OK, Finding

DVC = Path(".dvc")
DVC_LOCK = Path("dvc.lock")
SHOWN = 3
PLUGINS = {"webdavs": "webdav"}  # of `dvc[...]`, where it is not the URL's scheme


def git() -> Finding:
    """A repository with its history: metrics are compared across commits."""
    try:
        shallow = _run("git", "rev-parse", "--is-shallow-repository")
    except FileNotFoundError:
        return Finding(BROKEN, "git", "is not installed", "install git")
    if shallow is None or not paths.PLAN.is_file():
        return Finding(
            BROKEN,
            "git",
            "this is no checkout of the pipeline",
            "run from the root of a clone: `git clone URL`",
        )
    if shallow == "true":
        return Finding(
            NOTE,
            "git",
            "a shallow clone: earlier commits, and so comparisons, are missing",
            "git fetch --unshallow",
        )
    return Finding(OK, "git", "a whole clone")


def record() -> Finding:
    """Whether there is a `dvc.lock`, and Git has it."""
    if not DVC_LOCK.is_file():
        return Finding(NOTE, "record", "dvc.lock is missing", "run `make repro`")
    if _run("git", "status", "--porcelain", "--", str(DVC_LOCK)):
        return Finding(
            NOTE,
            "record",
            "dvc.lock is not committed as it is",
            "commit it together with what changed it",
        )
    return Finding(OK, "record", "dvc.lock is committed")


def remote() -> Finding:
    """Where outputs go that others, and this machine's successor, can have."""
    listed = _run(sys.executable, "-m", "dvc", "remote", "list")
    if listed is None:
        return Finding(
            BROKEN, "remote", "dvc does not run here", "run `dvc doctor` to see why"
        )
    if not listed:
        return Finding(
            NOTE,
            "remote",
            "none: outputs and former runs live on this machine only",
            "dvc remote add --default NAME URL, then dvc push --run-cache",
        )
    # A URL may hold a password: of it, the scheme alone.
    schemes = {
        name: urlsplit(url).scheme
        for name, url in (line.split()[:2] for line in listed.splitlines())
    }
    lacking = set(schemes.values()) - _reached()
    for name, scheme in schemes.items():
        if scheme in lacking:
            return Finding(
                BROKEN,
                "remote",
                f"{name} is {scheme}://, which this environment cannot reach",
                f"pip install 'dvc[{PLUGINS.get(scheme, scheme)}]'; `dvc doctor` "
                "then lists it",
            )
    return Finding(OK, "remote", ", ".join(schemes))


def _reached() -> set[str]:
    """Schemes of URLs that `dvc doctor` says are supported; folders have none."""
    told = _run(sys.executable, "-m", "dvc", "doctor") or ""
    _, _, listed = told.partition("Supports:")
    names = re.findall(r"^\t(\w+)", listed.partition("Config:")[0], re.M)
    return {"", "file", *names}


def locks() -> Iterator[Finding]:
    """What killed commands left behind, or running ones hold."""
    found = []
    index = Path(".git/index.lock")
    if index.exists():
        found.append(
            Finding(
                BROKEN,
                "locks",
                f"{index}: a git command runs, or was killed",
                f"if none runs: rm {index}",
            )
        )
    if _is_held(DVC / "tmp" / "lock"):
        found.append(
            Finding(NOTE, "locks", "a dvc command runs here now", "wait for its end")
        )
    try:
        holders = _holders(DVC / "tmp" / "rwlock")
    except ValueError:
        found.append(
            Finding(
                BROKEN,
                "locks",
                f"{DVC / 'tmp' / 'rwlock'} is cut short: a dvc command was killed",
                f"rm {DVC / 'tmp' / 'rwlock'}",
            )
        )
        holders = set()
    running = sorted(pid for pid in holders if psutil.pid_exists(pid))
    if running:
        found.append(
            Finding(
                NOTE,
                "locks",
                f"outputs are in use by process {', '.join(map(str, running))}",
                "wait for its end",
            )
        )
    elif holders:
        found.append(
            Finding(
                NOTE,
                "locks",
                "a killed dvc command left its marks; the next one removes them",
            )
        )
    yield from found or [Finding(OK, "locks", "none")]


def _is_held(path: Path) -> bool:
    """Whether a process holds DVC's lock; the file itself stays for ever."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _holders(path: Path) -> set[int]:
    """Processes that DVC has noted as reading or writing outputs.

    Raises:
        ValueError: If the file is not whole.
    """
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    try:
        writers = list(noted.get("write", {}).values())
        readers = [one for some in noted.get("read", {}).values() for one in some]
        return {int(one["pid"]) for one in (*writers, *readers)}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def leftovers() -> Finding:
    """What interrupted stages keep: checkpoints, half-written outputs."""
    some = [p for p in paths.WORK.rglob("*") if p.is_file()]
    if not some:
        return Finding(OK, "leftovers", f"{paths.WORK} is empty")
    size = sum(p.stat().st_size for p in some)
    return Finding(
        NOTE,
        "leftovers",
        f"{len(some)} files of {size / 2**20:.0f} MiB in {paths.WORK}; an interrupted "
        "training goes on from them",
        "make clean removes them",
    )


def cache() -> Finding:
    """Every file of the DVC cache against the hash that is its name."""
    folder = _run(sys.executable, "-m", "dvc", "cache", "dir")
    top = Path(folder or DVC / "cache") / "files" / "md5"
    objects = sorted(p for p in top.glob("*/*") if p.is_file())
    bad = []
    for path in tqdm(objects, desc="cache", unit="file", disable=None):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != path.parent.name + path.name.removesuffix(".dir"):
            bad.append(path)
    if bad:
        names = ", ".join(map(str, bad[:SHOWN]))
        return Finding(
            BROKEN,
            "cache",
            f"{len(bad)} of {len(objects)} files are not what their name says: {names}"
            f"{'' if len(bad) <= SHOWN else ' ...'}",
            "remove them, then `dvc fetch` if there is a remote, or `dvc repro`",
        )
    return Finding(OK, "cache", f"all {len(objects)} files are whole")


def _run(*words: str) -> str | None:
    """What a command printed; None if it failed."""
    done = subprocess.run(words, capture_output=True, text=True)
    return None if done.returncode else done.stdout.strip()
