"""What `make repro` says at its end: the result, where to look, how long it took."""

import json
import subprocess
from typing import Any

from stages.core import files, paths
from stages.core.errors import run
from stages.scoring.scores import headline

PLACES = (
    ("metrics", paths.METRICS),
    ("every image", paths.PER_IMAGE),
    ("overlays", paths.OVERLAYS),
    ("data quality", paths.QUALITY_DOCS / "index.html"),
    ("verdict", paths.VERDICT),
    ("model", paths.EXPORT),
    ("model card", paths.EXPORT / "model_card.md"),
)
# What decides the bits of a result beside data, params and code.
MACHINE = ("processor", "system", "python", "libraries", "threads", "onednn", "devices")


def main() -> None:
    """Prints the headline, the time per stage and the place of every result."""
    metrics = files.read_json(paths.METRICS)
    print(f"\n{headline(metrics)}")
    passed = files.read_json(paths.VERDICT)["passed"]
    print(f"gate {'passed' if passed else 'FAILED'}")
    print(f"{_times()}\n")
    for name, path in PLACES:
        print(f"  {name:<14}{path}{'' if path.exists() else '  (not made yet)'}")
    print(
        "\nCompare with a commit:  make review BASE=main\n"
        "Try a change:           dvc exp run -S train.epochs=10"
    )
    if note := _machine_note():
        print(f"\n{note}")


def _times() -> str:
    """How long the stages of this run took; DVC's cache had the others."""
    if not paths.STAGE_TIMES.is_file():
        return "every stage was up to date"
    lines = paths.STAGE_TIMES.read_text("utf-8").splitlines()
    seconds = {stage: float(value) for stage, value in (x.split(",") for x in lines)}
    listed = ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())
    return f"seconds per stage: {listed}"


def _machine_note() -> str:
    """Why results may differ from the committed ones although nothing was changed."""
    committed = _committed(paths.BUILD.as_posix())
    here = files.read_json(paths.BUILD)
    different = [k for k in MACHINE if committed and committed.get(k) != here.get(k)]
    if not different:
        return ""
    return (
        f"These numbers are this machine's: its {', '.join(different)} differ from "
        "those of the committed results, and so do the last digits.\n"
        "`git status` shows the changed files, as expected. "
        "Put the committed ones back:  git checkout dvc.lock data && dvc checkout"
    )


def _committed(path: str) -> dict[str, Any]:
    """A JSON file of the last commit; empty outside Git, or where it has none."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{path}"], capture_output=True, check=False
    )
    return dict(json.loads(shown.stdout)) if shown.returncode == 0 else {}


if __name__ == "__main__":
    run(main)
