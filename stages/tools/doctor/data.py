"""The data: what they take on disk, and whether Kaggle will give them."""

import os
from pathlib import Path

from stages.core import files
from stages.core.errors import PipelineError
from stages.core.params import IngestParams
from stages.tools.doctor.finding import BROKEN, NOTE, OK, Finding

# A pair as PNG; phantoms have about 100 kB, the target data 40.
PHANTOM_PAIR_BYTES = 120_000
# The largest of the known data sets (COVID-QU-Ex) is a zip of 1.2 GB.
KAGGLE_BYTES = 1_300_000_000
COPIES = 2  # the workspace and the DVC cache


def bytes_needed(ingest: IngestParams) -> int:
    """About what the data take, in the workspace, the cache and as a download."""
    match ingest.source:
        case "phantom":
            return ingest.phantom.pairs * PHANTOM_PAIR_BYTES * COPIES
        case "kaggle":
            return KAGGLE_BYTES * (COPIES + 1)
        case _:
            folder = Path(ingest.folder)
            if folder.is_dir():
                sizes = (p.stat().st_size for p in folder.rglob("*") if p.is_file())
                return sum(sizes) * COPIES
            return folder.stat().st_size * COPIES if folder.is_file() else 0


def credentials_source() -> str:
    """Where Kaggle's credentials come from, as kagglehub looks for them; "" if none.

    Never what they are.
    """
    home = Path("~/.kaggle").expanduser()
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or home)
    if os.environ.get("KAGGLE_API_TOKEN"):
        return "KAGGLE_API_TOKEN"
    for path in (home / "access_token", home / "access_token.txt"):
        if path.is_file() and path.stat().st_size:
            return str(path)
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return "KAGGLE_USERNAME and KAGGLE_KEY"
    path = folder / "kaggle.json"
    return str(path) if path.is_file() else ""


def credentials(ingest: IngestParams) -> Finding:
    """Whether there are credentials, where they are needed."""
    source = credentials_source()
    if ingest.source != "kaggle":
        found = f"from {source}" if source else "none"
        return Finding(OK, "kaggle", f"{found}; not needed for {ingest.source} data")
    if not source:
        from stages.datasets.sources import kaggle

        return Finding(BROKEN, "kaggle", "no credentials", kaggle.WHERE_CREDENTIALS_GO)
    path = Path(source)
    if path.is_file() and path.stat().st_mode & 0o077:
        return Finding(
            NOTE, "kaggle", f"others can read {source}", f"chmod 600 {source}"
        )
    if path.suffix == ".json":
        try:
            entries = files.read_json(path)
        except PipelineError:
            entries = None
        if not isinstance(entries, dict) or not {"username", "key"} <= entries.keys():
            return Finding(
                BROKEN,
                "kaggle",
                f"{source} is no JSON with username and key",
                "make a new token at https://www.kaggle.com/settings",
            )
    return Finding(OK, "kaggle", f"credentials from {source}")


def newest(ingest: IngestParams) -> Finding:
    """The pinned version against Kaggle's newest."""
    from stages.datasets.sources import kaggle

    pinned = ingest.kaggle.version
    try:
        found = kaggle.newest_version(ingest.kaggle)
    except PipelineError as error:
        state = BROKEN if ingest.source == "kaggle" else NOTE
        return Finding(state, "version", "Kaggle gave no answer", str(error))
    if found > pinned:
        return Finding(
            NOTE,
            "version",
            f"{ingest.kaggle.dataset} is at {found}, params pin {pinned}",
            f"try it: dvc exp run -S ingest.kaggle.version={found}",
        )
    return Finding(OK, "version", f"{ingest.kaggle.dataset}: {pinned} is the newest")
