"""Summary at the end of `make repro`: result, places of the outputs, durations."""

import time

from ruamel.yaml import YAML

from stages.core import dvc_files, files, git, paths
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


def main() -> None:
    """Prints the headline, the time per stage and the place of every result."""
    metrics = files.read_json(paths.METRICS)
    print(f"\n{headline(metrics)}")
    passed = files.read_json(paths.VERDICT)["passed"]
    print(f"gate {'passed' if passed else 'FAILED'}")
    print(f"{_times()}\n")
    for name, path in PLACES:
        print(f"  {name:<14}{path}{'' if path.exists() else '  (missing)'}")
    print(
        "\nCompare with a commit:  make review BASE=main\n"
        "Try a change:           dvc exp run -S train.epochs=10"
    )
    if note := _machine_note():
        print(f"\n{note}")


def _times() -> str:
    """Durations of the stages that ran; the others were cached."""
    if not paths.STAGE_TIMES.is_file():
        return "every stage was up to date"
    lines = [line.split(",") for line in paths.STAGE_TIMES.read_text().splitlines()]
    starts = [float(start) for _, start in lines]
    ends = [*starts[1:], time.time()]
    listed = ", ".join(
        f"{stage} {end - start:.0f}"
        for (stage, _), start, end in zip(lines, starts, ends, strict=True)
    )
    return f"seconds per stage: {listed}"


def _machine_note() -> str:
    """The reason why results may differ from the committed ones without a change."""
    done = git.run("show", f"HEAD:./{paths.DVC_LOCK}")
    lock = YAML(typ="safe", pure=True).load(done.stdout or b"{}") or {}
    committed = dvc_files.recorded_outs(lock.get("stages") or {})
    build = committed.get(paths.BUILD.as_posix())
    if build in (None, dvc_files.md5(paths.BUILD)):
        return ""
    return (
        "This machine's processor or libraries differ from those of the committed "
        f"results ({paths.BUILD}), so the last digits differ, too.\n"
        "`git status` shows the changed files, as expected. Commit them to review "
        "changes on this machine,\nor restore the committed ones:  git checkout "
        "dvc.lock data"
    )


if __name__ == "__main__":
    run(main)
