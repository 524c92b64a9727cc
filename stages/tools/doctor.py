"""Checks whether this machine and this checkout can run the pipeline.

The checks read only, and use no network.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import git, paths, processes
from stages.core.errors import PipelineError
from stages.core.params import IngestParams, Params, TrainParams, load_params
from stages.datasets.tree import check_for_dvc

OK, NOTE, BROKEN = "ok", "note", "BROKEN"
SETUP = "run `make setup` (it makes .venv), then use .venv/bin/python"
GIB = 2**30
TENSORFLOW_BYTES = 1 * GIB  # before the first image, measured on Linux
# Floats per pixel and filter of a level that the backward pass needs: convolution,
# batch norm and activation twice on the way down and twice on the way up, and the skip.
ACTIVATIONS = 14
PHANTOM_PAIR_BYTES = 120_000  # PNG
KAGGLE_BYTES = 1_300_000_000  # the largest known data set, COVID-QU-Ex, as a zip
OUTPUT_BYTES = 1 * GIB  # outputs other than data: model, pages, exports
COPIES = 2  # the workspace and DVC's cache


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    state: str  # OK; NOTE: worth knowing; BROKEN: must be corrected
    name: str
    found: str
    to_do: str = ""


def run() -> None:
    """Prints one line per check, and below it the remedy.

    Raises:
        PipelineError: If something is broken.
    """
    broken = []
    for finding in examine():
        print(f"{finding.state:<7} {finding.name:<10} {finding.found}", flush=True)
        if finding.to_do:
            print(f"{'':<19}-> {finding.to_do}", flush=True)
        if finding.state == BROKEN:
            broken.append(finding.name)
    if broken:
        raise PipelineError(f"correct {', '.join(broken)} first, see the lines with ->")


def examine() -> Iterator[Finding]:
    """Runs the checks one after the other."""
    yield packages()
    yield gpu()
    params: Params | None = None
    try:
        params = load_params()
        yield Finding(OK, "params", "every key is known and within its bounds")
    except PipelineError as error:
        yield Finding(BROKEN, "params", str(error), "correct params.yaml")
    if params is not None:
        yield memory(params.train)
        yield disk(params.ingest)
        yield folder(params.ingest)
        yield kaggle(params.ingest)
    yield checkout()
    yield record()
    yield remote()
    yield leftovers()


def packages() -> Finding:
    """Compares Python and the installed packages with the lock, by uv."""
    python = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(BROKEN, "python", f"{python} instead of 3.11 to 3.13", SETUP)
    uv = Path(sys.executable).with_name("uv")
    words = ["pip", "sync", "--dry-run", "--offline", "--no-cache", str(paths.LOCK)]
    done = subprocess.run(
        [str(uv) if uv.exists() else "uv", *words, "--python", sys.executable],
        capture_output=True,
        text=True,
    )
    # Additional packages, such as this project itself, are fine.
    missing = re.findall(r"^ \+ (\S+)", done.stderr, re.M)
    if done.returncode and not missing:
        reason = done.stderr.partition("\n\nhint:")[0]
        missing = [git.last_line(reason.encode())]
    if missing:
        found = (
            f"Python {python}; missing or of another version: {', '.join(missing[:5])}"
        )
        return Finding(BROKEN, "packages", found, SETUP)
    return Finding(OK, "packages", f"Python {python} and every package of {paths.LOCK}")


def gpu() -> Finding:
    """Looks for a GPU with its driver, and for TensorFlow's CUDA libraries."""
    tool = shutil.which("nvidia-smi")
    words = ["--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = tool and subprocess.run([tool, *words], capture_output=True, text=True)
    if not done or done.returncode:
        return Finding(OK, "gpu", "none: everything runs on the CPU")
    names = "; ".join(done.stdout.strip().splitlines())
    try:
        importlib.metadata.version("nvidia-cudnn-cu12")
    except importlib.metadata.PackageNotFoundError:
        found = f"{names}, but TensorFlow has no CUDA libraries here"
        return Finding(NOTE, "gpu", found, "run `make setup GPU=1` to train on it")
    return Finding(OK, "gpu", names)


def memory(train: TrainParams) -> Finding:
    """Compares free memory with an upper estimate for a training step."""
    floats = sum(
        (train.image_size >> level) ** 2 * width
        for level, width in enumerate(train.filters)
    )
    batch = 4 * floats * ACTIVATIONS * train.batch_size
    need, free = batch + TENSORFLOW_BYTES, psutil.virtual_memory().available
    found = f"{free / GIB:.1f} GiB free, training takes about {need / GIB:.1f}"
    if free >= need:
        return Finding(OK, "memory", found)
    to_do = "lower train.batch_size, train.image_size or filters, or use a GPU"
    return Finding(NOTE, "memory", found, to_do)


def disk(ingest: IngestParams) -> Finding:
    """Compares free disk space with an estimate for a first run."""
    data = 0
    if "phantom" in ingest.source:
        data += ingest.phantom.pairs * PHANTOM_PAIR_BYTES
    if "kaggle" in ingest.source:
        data += KAGGLE_BYTES + KAGGLE_BYTES // COPIES
    if "folder" in ingest.source:
        folder = Path(ingest.folder)
        some = folder.rglob("*") if folder.is_dir() else [folder]
        data += sum(path.stat().st_size for path in some if path.is_file())
    need, free = data * COPIES + OUTPUT_BYTES, shutil.disk_usage(Path()).free
    found = f"{free / GIB:.1f} GiB free, a first run takes about {need / GIB:.1f}"
    if free >= need:
        return Finding(OK, "disk", found)
    to_do = "free some, or lower ingest.limit; `dvc gc -w` helps"
    return Finding(BROKEN, "disk", found, to_do)


def folder(ingest: IngestParams) -> Finding:
    """Whether DVC can hash `ingest.folder`: plain `dvc repro` waits for a pipe."""
    if "folder" not in ingest.source:
        return Finding(OK, "folder", "ingest.folder is not read")
    try:
        check_for_dvc(Path(ingest.folder))
    except PipelineError as error:
        return Finding(BROKEN, "folder", str(error), "do so before `dvc repro`")
    return Finding(OK, "folder", "DVC can read ingest.folder")


def kaggle(ingest: IngestParams) -> Finding:
    """Checks that Kaggle's credentials exist; their values are never printed."""
    if "kaggle" not in ingest.source:
        source = " and ".join(ingest.source)
        return Finding(OK, "kaggle", f"{source} data need no credentials")
    try:
        from kagglehub.config import get_kaggle_credentials

        from stages.datasets.sources.kaggle import WHERE_CREDENTIALS_GO

        is_there = bool(get_kaggle_credentials())
    except Exception as error:  # a broken file, or no home folder
        to_do = "set KAGGLE_API_TOKEN, or make a new token"
        found = f"credentials cannot be read ({type(error).__name__})"
        return Finding(BROKEN, "kaggle", found, to_do)
    if not is_there:
        return Finding(BROKEN, "kaggle", "no credentials", WHERE_CREDENTIALS_GO)
    path = Path(os.path.expanduser("~/.kaggle/kaggle.json"))  # noqa: PTH111 no HOME
    if path.is_file() and path.stat().st_mode & 0o077:
        return Finding(NOTE, "kaggle", f"others can read {path}", f"chmod 600 {path}")
    return Finding(OK, "kaggle", "credentials are there")


def checkout() -> Finding:
    """Checks for a Git checkout with its history, which comparisons need."""
    clone = "run from the root of a clone"
    try:
        shallow = git.output("rev-parse", "--is-shallow-repository") == "true"
    except PipelineError as error:
        return Finding(BROKEN, "git", str(error), clone)
    if not paths.PLAN.is_file():
        return Finding(BROKEN, "git", f"{paths.PLAN} is missing here", clone)
    if shallow:
        found = "a shallow clone: earlier commits, and so comparisons, are missing"
        return Finding(NOTE, "git", found, "git fetch --unshallow")
    if prefix := git.output("rev-parse", "--show-prefix"):
        found = "a folder of a larger repository: review, folds and release refuse it"
        to_do = f"git subtree split --prefix {prefix.rstrip('/')}"
        return Finding(NOTE, "git", found, to_do)
    return Finding(OK, "git", "a clone with its history")


def record() -> Finding:
    """Checks that `dvc.lock` is readable and committed."""
    lock = paths.DVC_LOCK
    if not lock.is_file():
        return Finding(NOTE, "dvc.lock", "is missing", "run `make repro`")
    try:
        YAML(typ="safe", pure=True).load(lock.read_text("utf-8"))
    except (YAMLError, UnicodeError):
        found = "is not YAML, or holds the markers of a merge conflict"
        to_do = (
            "take either side (`git checkout --ours dvc.lock` or --theirs), run "
            "`make repro`, then commit what it writes"
        )
        return Finding(BROKEN, "dvc.lock", found, to_do)
    if git.run("status", "--porcelain", "--", str(lock)).stdout.strip():
        to_do = "commit it together with the files that changed it"
        return Finding(NOTE, "dvc.lock", "differs from the last commit", to_do)
    return Finding(OK, "dvc.lock", "is committed")


def remote() -> Finding:
    """Checks that DVC can reach the remotes, by `dvc doctor`."""
    # In a checkout, `dvc doctor` fails if a remote is unsupported.
    report, listed = _dvc("doctor", cwd="/"), _dvc("remote", "list")
    if report is None or listed is None:
        return Finding(BROKEN, "remote", "dvc does not run here", "see `dvc doctor`")
    # A URL may hold a password, so only its scheme is printed.
    schemes = {
        name: urlsplit(url).scheme
        for name, url in (line.split()[:2] for line in listed.splitlines())
    }
    supports = report.partition("Supports:")[2].partition("Config:")[0]
    known = {"", "file", *re.findall(r"^\t(\w+)", supports, re.M)}
    for name, scheme in schemes.items():
        if scheme not in known:
            found = f"{name} is {scheme}://, which this environment cannot reach"
            to_do = f"pip install 'dvc[{scheme}]'"
            return Finding(BROKEN, "remote", found, to_do)
    if schemes:
        return Finding(OK, "remote", ", ".join(schemes))
    found = "none: outputs and the run-cache exist on this machine only"
    to_do = "dvc remote add --default NAME URL, then dvc push --run-cache"
    return Finding(NOTE, "remote", found, to_do)


def leftovers() -> Finding:
    """Lists files of interrupted stages: checkpoints, partial outputs."""
    some = [path for path in paths.WORK.rglob("*") if path.is_file()]
    if not some:
        return Finding(OK, "leftovers", f"{paths.WORK} is empty")
    size = sum(path.stat().st_size for path in some)
    found = (
        f"{len(some)} files of {size / 2**20:.0f} MiB in {paths.WORK}; an interrupted "
        "training continues from them"
    )
    return Finding(NOTE, "leftovers", found, "`make clean` removes them")


def _dvc(*words: str, cwd: str = ".") -> str | None:
    """The output of a dvc command; None if it failed."""
    done = subprocess.run(
        processes.dvc(*words),
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env=processes.environment(),
    )
    return None if done.returncode else done.stdout
