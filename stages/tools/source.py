"""Checks before `make repro` starts DVC that DVC can hash the source folder."""

from pathlib import Path

from stages.core.errors import run
from stages.core.params import load_params
from stages.datasets.tree import check_for_dvc


def main() -> None:
    """Checks `ingest.folder`, if the params read it."""
    params = load_params().ingest
    if "folder" in params.source:
        check_for_dvc(Path(params.folder))


if __name__ == "__main__":
    run(main)
