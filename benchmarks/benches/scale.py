"""Each stage at growing numbers of pairs, beside a straight line.

The slope of log(seconds of work) over log(pairs), imports left out, and how much more
memory the largest took than the smallest. Small pictures and a small network, so that
the number of pairs is what grows. Target: an exponent of at most 1.05.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import data, processes
from benchmarks.harness import Options, Row, exponent

LONG = True
SIZES = 4  # each four times the one before
SIDE = 64  # pixels of image and mask
STAGES = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")
# A network that takes little of a pair's time, one epoch, a gate that opens.
SMALL = {
    "train.image_size": 32,
    "train.filters": [4, 8, 8],
    "train.epochs": 1,
    "train.batch_size": 32,
    "train.gradient_log_interval": 0,
    "gate.min": {"dice.mean": 0},
    "gate.max": {},
}
FLAT = 1.25  # memory of the largest over the smallest


def bench(options: Options) -> list[Row]:
    """All stages at each size, smallest first."""
    largest = options.size(32_000, 8)
    sizes = [largest // 4**i for i in range(2 if options.quick else SIZES)][::-1]
    # Quick stops where the first libraries that take seconds would be imported.
    stages = STAGES[: 1 if options.quick else None]
    base = data.phantoms(data.DRAWN, side=SIDE)
    measured: dict[str, list[processes.Measured]] = {name: [] for name in stages}
    for size in sizes:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            data.write_folder(data.varied(base, size), folder / "files")
            data.zip_folder(folder / "files", folder / "all.zip")
            values = data.settings(base, folder / "all.zip")
            processes.write_params(values | SMALL, folder)
            (folder / "requirements.lock").touch()
            for name in stages:
                measured[name].append(processes.stage(name, folder))
    rows = []
    for name, runs in measured.items():
        slope = exponent(sizes, [one.work_s for one in runs])
        # Constant costs of a stage weigh least there.
        last = exponent(sizes[-2:], [one.work_s for one in runs[-2:]])
        rows += [
            Row(
                f"{name}, exponent",
                slope,
                "",
                at_most=1.05,
                notes={
                    f"{size} pairs, s": one.work_s
                    for size, one in zip(sizes, runs, strict=True)
                }
                | {"exponent of the last two": last},
            ),
            Row(
                f"{name}, most memory at {max(sizes)} pairs",
                runs[-1].peak_bytes / 1e6,
                "MB",
                runs[0].peak_bytes / 1e6,
                f"at {min(sizes)}",
                at_most=FLAT,
            ),
        ]
    return rows
