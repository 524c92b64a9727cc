"""The paths of all files under `data/`, relative to the repository's root.

DVC starts the stages in the root. Each test runs in a directory of its own.
"""

from pathlib import Path
from urllib.parse import quote

PARAMS = Path("params.yaml")
PLAN = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
LOCK = Path("requirements.lock")

DATA = Path("data")
# Partial outputs, checkpoints and caches, which neither DVC nor Git tracks.
WORK = DATA / ".work"

INCOMING = DATA / "incoming"  # where .dvcignore names hidden files
INGESTED = DATA / "ingested"
INGESTED_SUMMARY = DATA / "ingested.json"

QUALITY_PAIRS = DATA / "quality" / "pairs.parquet"
QUALITY_REPORT = DATA / "quality" / "report.json"
QUALITY_DOCS = DATA / "quality" / "docs"

SPLIT_PAIRS = DATA / "splits" / "pairs.csv"
SPLIT_SUMMARY = DATA / "splits" / "summary.json"

MODEL = DATA / "model" / "unet.keras"
HISTORY = DATA / "model" / "history.csv"
GRADIENTS = DATA / "model" / "gradients.csv"
BUILD = DATA / "model" / "build.json"
SEED_NOISE = DATA / "seed_noise.json"
STAGE_TIMES = WORK / "stage_times.csv"
CHECKPOINTS = WORK / "train"
TENSORBOARD = WORK / "tensorboard"

METRICS = DATA / "evaluation" / "metrics.json"
PER_IMAGE = DATA / "evaluation" / "per_image.csv"
PREDICTIONS = DATA / "evaluation" / "predictions.parquet"
OVERLAYS = DATA / "evaluation" / "overlays"
THRESHOLD_CURVE = DATA / "evaluation" / "threshold_curve.csv"

VERDICT = DATA / "gate" / "verdict.json"

EXPORT = DATA / "export"
EXPORT_SUMMARY = DATA / "export.json"


def slug(name: str) -> str:
    """Percent-encodes a text, except spaces and `()`: a unique and safe file name.

    Example:
        >>> slug("Viral Pneumonia-7"), slug("../a")
        ('Viral Pneumonia-7', '%2E%2E%2Fa')
    """
    quoted = quote(name, safe=" ()")
    return quoted.replace(".", "%2E")
