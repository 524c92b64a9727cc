"""A lung-segmentation pipeline that reads like a plan; `dvc.yaml` is the plan.

ingest    a source           -> Parquet shards, one row an image/mask pair
validate  shards             -> facts a pair, a Great Expectations report, pages to see
split     accepted pairs     -> train and validation, copies and patients kept together
train     splits             -> a U-Net, its curves, the gradients its heads send
evaluate  model + validation -> Dice and distances an image, overlays, predicted masks
gate      metrics            -> a verdict, or a failed stage
export    model + verdict    -> ONNX, SavedModel, LiteRT and a model card

flow      the corridor       -> Prefect over the plan: schedules, retries, a page to see
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

# TensorFlow greets every start with pages about hardware that is not there; its
# errors still arrive as exceptions. Must be set before its first import; yours wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As must this. TensorFlow itself takes oneDNN's kernels only where a processor has
# AVX512_VNNI or the like; with AVX2 alone they halve a training step.
# `data/model/build.json` says whether they were on: other kernels, other bits.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# OpenCV's own lines name no file; what it refuses is in our errors. It and Pillow may
# read a hostile file's size differently: OpenCV refuses more pixels than these.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**27))


def _stopped(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends at once: while modules are imported, nothing has been begun."""
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
    os.write(2, f"{word[signal.Signals(number)]}; nothing was begun\n".encode())
    os._exit(128 + number)


# Python says `-m` while it looks for the module of `python -m stages.NAME`, whose
# imports take seconds: a Ctrl-C then is no defect. `errors.run` takes these back.
if sys.argv[:1] == ["-m"]:
    for _signal in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(_signal) != signal.SIG_IGN:  # nohup's wish
            signal.signal(_signal, _stopped)
