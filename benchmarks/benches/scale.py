"""Each stage at growing numbers of pairs, beside a straight line.

The slope of log(seconds of work) over log(pairs), imports left out, and how much more
memory the largest took than the smallest. Small pictures and a small network, so that
the number of pairs is what grows. Target: an exponent of at most 1.05.
"""

from benchmarks import data, processes
from benchmarks.harness import Options, Row, Target, exponent
from stages.core.params import Params, load_params

OPTIONS = ("sizes",)
LONG = True
SIZES = (500, 2000, 8000, 32_000)
SIDE = 64  # pixels of image and mask
STAGES = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")
FLAT = 1.25  # memory of the largest over the smallest


def bench(options: Options) -> list[Row]:
    """All stages at each size, smallest first."""
    sizes = options.sizes or ((4, 8) if options.quick else SIZES)
    # Quick stops where the first libraries that take seconds would be imported.
    stages = STAGES[: 1 if options.quick else None]
    base = data.phantoms(data.DRAWN, side=SIDE)
    measured: dict[str, list[processes.Measured]] = {name: [] for name in stages}
    for size in sorted(sizes):
        with processes.workspace() as folder:
            data.write_folder(data.varied(base, size), folder / "files")
            data.zip_folder(folder / "files", folder / "all.zip")
            params = data.params_for(base, folder / "all.zip", load_params())
            processes.write_params(_small(params), folder)
            (folder / "requirements.lock").touch()
            for name in stages:
                measured[name].append(processes.stage(name, folder))
    rows = []
    for name, runs in measured.items():
        slope = exponent(sorted(sizes), [one.work_s for one in runs])
        # What a stage takes for any number of pairs weighs least there.
        last = exponent(sorted(sizes)[-2:], [one.work_s for one in runs[-2:]])
        growth = runs[-1].peak_bytes / max(runs[0].peak_bytes, 1)
        rows += [
            Row(
                f"{name}, exponent",
                slope,
                "",
                1.0,
                "straight line",
                slope,
                Target(1.05, at_most=True),
                {
                    f"{size} pairs, s": one.work_s
                    for size, one in zip(sorted(sizes), runs, strict=True)
                }
                | {"exponent of the last two": last},
            ),
            Row(
                f"{name}, most memory at {max(sizes)} pairs",
                runs[-1].peak_bytes / 1e6,
                "MB",
                runs[0].peak_bytes / 1e6,
                f"at {min(sizes)}",
                growth,
                Target(FLAT, at_most=True),
            ),
        ]
    return rows


def _small(params: Params) -> Params:
    """A network that takes little of a pair's time, one epoch, a gate that opens."""
    train = {
        "image_size": 32,
        "filters": [4, 8, 8],
        "epochs": 1,
        "batch_size": 32,
        "gradient_log_interval": 0,
    }
    return params.model_copy(
        update={
            "train": params.train.model_copy(update=train),
            "gate": params.gate.model_copy(update={"min": {"dice.mean": 0}, "max": {}}),
        }
    )
