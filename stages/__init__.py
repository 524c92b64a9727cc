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

# TensorFlow greets every start with pages about hardware that is not there; its
# errors still arrive as exceptions. Must be set before its first import; yours wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
