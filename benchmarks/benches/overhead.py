"""`make repro` less the training itself, beside bare imports and stage work.

`dvc repro` of the working tree on the embedded data, in a copy, with two epochs, and
the summary; less what those epochs took. Beside: for each stage the import of its
libraries alone plus its work. To be reached: 60 s in all.
"""

import sys
from pathlib import Path

from benchmarks import processes
from benchmarks.frame import Options, Reach, Row, seconds
from stages.core.params import Params, load_params

OPTIONS = ()
LONG = False
# What each stage cannot do without.
LIBRARIES = {
    "ingest": "cv2, pandas, pyarrow",
    "validate": "cv2, pandas, pyarrow, great_expectations",
    "split": "pandas, pyarrow, scipy.sparse",
    "train": "tensorflow, pandas",
    "evaluate": "tensorflow, pandas",
    "gate": "json",
    "export": "tensorflow, onnx, onnxruntime, ai_edge_litert, tf2onnx",
}


def bench(options: Options) -> list[Row]:
    """The whole, then its parts."""
    params = _short(load_params(), options)
    # Quick stops where the first libraries that take seconds would be imported.
    stages = list(LIBRARIES)[: 1 if options.quick else None]
    with processes.workspace() as folder:
        clone = processes.checkout(folder / "clone")
        processes.write_params(params, clone)
        whole, training = _repro(clone, stages)
        parts = folder / "parts"
        parts.mkdir()
        processes.write_params(params, parts)
        (parts / "requirements.lock").write_bytes(
            (clone / "requirements.lock").read_bytes()
        )
        measured = {name: processes.stage(name, parts) for name in stages}
        times = 1 if options.quick else 2
        imports = {n: _bare_import(LIBRARIES[n], parts, times) for n in stages}
    work = {name: one.work_s - one.training_s for name, one in measured.items()}
    least = sum(imports.values()) + sum(work.values())
    overhead = whole - training
    return [
        Row(
            "make repro less the training",
            overhead,
            "s",
            least,
            "bare imports and stage work",
            overhead / least,
            Reach(60, of="figure", at_most=True),
            {"training, 2 epochs, s": training},
        ),
        *(
            Row(
                f"  {name}",
                one.import_s + work[name],
                "s",
                imports[name] + work[name],
                "bare import and work",
                (one.import_s + work[name]) / (imports[name] + work[name]),
                notes={"import": one.import_s, "work": work[name]},
            )
            for name, one in measured.items()
        ),
    ]


def _short(params: Params, options: Options) -> Params:
    """Two epochs, which no gate would let pass."""
    phantoms = params.ingest.phantom
    if options.quick:
        phantoms = phantoms.model_copy(update={"pairs": 2, "image_size": 32})
    return params.model_copy(
        update={
            "ingest": params.ingest.model_copy(
                update={"source": "phantom", "phantom": phantoms}
            ),
            "train": params.train.model_copy(update={"epochs": 2}),
            "gate": params.gate.model_copy(update={"min": {"dice.mean": 0}, "max": {}}),
        }
    )


def _repro(clone: Path, stages: list[str]) -> tuple[float, float]:
    """Seconds of what `make repro` does after set-up, and of the training in it."""
    everything = len(stages) == len(LIBRARIES)
    words = ["repro"] if everything else ["repro", *stages]
    lines: list[processes.Line] = []
    took = seconds(lambda: lines.extend(processes.dvc(clone, *words)))
    if everything:
        summary = [sys.executable, "-m", "stages.tools.summary"]
        took += seconds(lambda: processes.run(summary, clone, PYTHONPATH=""))
    return took, processes.training_seconds(lines)


def _bare_import(libraries: str, folder: Path, times: int) -> float:
    words = [sys.executable, "-c", f"import {libraries}"]
    return min(seconds(lambda: processes.run(words, folder)) for _ in range(times))
