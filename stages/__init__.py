"""A pipeline that trains, judges and ships a U-Net; `dvc.yaml` is the plan.

The plan's seven stages, `python -m stages.NAME`:

ingest      reads a data source into Parquet shards, one row per image/mask pair
validate    measures every pair and lets Great Expectations accept or reject it
split       divides accepted pairs into training and validation, by patient
train       trains the network on the training side
evaluate    scores the model on the validation side, image by image
gate        compares the metrics with their bounds, and fails if one is missed
export      writes the model as ONNX, SavedModel and LiteRT, with a model card

The rooms below them, lowest first; none imports from a later one:

core        params, paths, files, errors: what knows nothing of the others
datasets    sources and layouts of data, and the table of pairs
scoring     metrics, scores per image, overlays
nn          TensorFlow: batches, losses, the training loop, the networks
inference   one exported model from pixels to mask: predict, score, serve
review      what a change did to the results, image by image
flow        Prefect over the plan: schedules, retries, a page to look at
tools       small commands by hand: study, folds, experiments, release, doctor
cli         `lungfield`, one command over all of it
"""

import os
import sys
from pathlib import Path
from types import TracebackType

# TensorFlow and ONNX Runtime read these at their first import. Values that are already
# set stay, but for telemetry, which nothing here needs.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors, without warnings
# TensorFlow itself uses oneDNN only on processors with AVX512_VNNI or newer; with AVX2
# alone it halves the time of a training step. `data/model/build.json` records it, since
# it changes the last bits of the weights.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# As does OpenCV. Its log lines name no file, and the errors here say what it refuses;
# this bound holds where it reads another size from a hostile file than Pillow.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))
# Caches and settings of libraries: beside them, not in the user's home folder.
_caches = Path(sys.prefix, "cache")
os.environ.setdefault("KERAS_HOME", str(_caches / "keras"))
os.environ.setdefault("MPLCONFIGDIR", str(_caches / "matplotlib"))
os.environ |= {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def _on_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """One sentence for Ctrl-C during imports, which `core.errors` does not see."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted; the next run goes on from here\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _on_error
