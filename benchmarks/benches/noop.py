"""`dvc repro` with nothing to do, beside the same DVC on seven empty stages.

The plan of the last commit with pairs ingested from a zip and from a folder of
files; outputs of later stages are stand-ins of their usual number and size, since DVC
looks at no content. Target: at most 1.2 times.
"""

import contextlib
import functools
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from benchmarks import data, processes
from benchmarks.harness import Options, Row, alternate
from stages.core import files, paths
from stages.core.params import load_params
from stages.datasets.pairs import Pair
from stages.ingest import ingest

LONG = False
KINDS = ("outs", "metrics", "plots")


def bench(options: Options) -> list[Row]:
    """Both kinds of source and the empty plan, in turns."""
    count = options.size(2000, 4)
    base = data.encoded(options, min(count, data.DRAWN))
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        zipped, loose = folder / "all.zip", folder / "files"
        data.write_folder(data.varied(base, count), loose)
        data.zip_folder(loose, zipped)
        _empty(folder / "empty")
        plans = (
            {"a zip": zipped} if options.quick else {"a zip": zipped, "a folder": loose}
        )
        for name, source in plans.items():
            _up_to_date(folder / name, source, base, count)
        took = alternate(
            {
                name: functools.partial(_nothing_to_do, folder / name)
                for name in ("empty", *plans)
            },
            repeats=0 if options.quick else 5,
        )
    return [
        Row(
            f"{count} pairs from {name}",
            took[name],
            "s",
            took["empty"],
            "seven empty stages",
            at_most=1.2,
        )
        for name in plans
    ]


def _empty(folder: Path) -> None:
    """Seven stages, each of which reads the file before and writes one."""
    folder.mkdir()
    processes.run(["git", "init", "--quiet"], folder)
    processes.dvc(folder, "init", "--quiet")
    (folder / "0").write_text("0")
    stages = {
        f"stage{number}": {
            "cmd": f"echo {number} > {number}",
            "deps": [str(number - 1)],
            "outs": [str(number)],
        }
        for number in range(1, 8)
    }
    with (folder / paths.PLAN).open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({"stages": stages}, file)
    processes.dvc(folder, "repro")


def _up_to_date(folder: Path, source: Path, base: list[Pair], count: int) -> None:
    """A checkout that DVC holds for up to date."""
    processes.run(["git", "clone", "--quiet", ".", str(folder)], processes.ROOT)
    files.remove(folder / paths.DVC_LOCK)
    processes.write_params(data.settings(base, source), folder)
    with contextlib.chdir(folder):
        ingest(load_params().ingest)
    plan = YAML(typ="safe", pure=True).load(folder / paths.PLAN)["stages"]
    for stage in plan.values():
        for kind in KINDS:
            for out in stage.get(kind, []):
                name = out if isinstance(out, str) else next(iter(out))
                _stand_in(folder / name, count)
    processes.dvc(folder, "commit", "--force", "--quiet")


def _stand_in(path: Path, count: int) -> None:
    """An output in place of the real one; what is there stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".json" | ".csv":
            path.write_text("{}\n" if path.suffix == ".json" else "step,value\n0,0\n")
        case "":
            for number in range(16):  # overlays, pages, the parts of an exported model
                path.mkdir(exist_ok=True)
                (path / f"{number}.png").write_bytes(bytes(100_000))
        case _:
            path.write_bytes(bytes(500 * count))


def _nothing_to_do(folder: Path) -> None:
    if "Running stage" in processes.dvc(folder, "repro"):
        raise RuntimeError(f"{folder.name}: a stage ran, so this was no no-op")
