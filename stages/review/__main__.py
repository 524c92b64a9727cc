"""`python -m stages.review BASE [HEAD] [--pull] [-o DIR] [-k N] [--panels N]`."""

import argparse
from pathlib import Path

from stages.core.errors import PipelineError, run
from stages.review import markdown, page, review


def main() -> None:
    """Writes `review.md` and `review.html` and prints the verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.review",
        description="Compare two Git revisions, image by image. Runs no stage.",
    )
    parser.add_argument("base", help="Git revision to compare with, such as main")
    parser.add_argument(
        "head", nargs="?", help="Git revision to judge (default: the working tree)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(), metavar="DIR", help="where to write"
    )
    parser.add_argument(
        "-k", type=_count, default=6, metavar="N", help="regressions and gains to list"
    )
    parser.add_argument(
        "--panels",
        type=_count,
        default=200,
        metavar="N",
        help="changed images to picture, most changed first",
    )
    parser.add_argument(
        "--pull", action="store_true", help="fetch what is missing from the DVC remote"
    )
    words = parser.parse_args()
    found = review(
        words.base, words.head, k=words.k, num_panels=words.panels, pull=words.pull
    )
    reports = {"review.md": markdown.render(found), "review.html": page.render(found)}
    for name, text in reports.items():
        _write(words.out / name, text)
    print(f"{markdown.headline(found)}\n{words.out / 'review.html'}")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"should be a whole number, found {text!r}")
    return int(text)


def _write(path: Path, text: str) -> None:
    """Whole or not at all; beside its place, since that may be another disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise PipelineError(
            f"--out {path.parent} should be a folder, or be free for one, but a file "
            "is in its way; choose another"
        ) from None
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
