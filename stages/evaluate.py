"""Scores the model on the held-out side of the split, image by image.

Reads:  data/model/unet.keras, data/ingested, data/splits/pairs.csv (validation rows)
Writes: data/evaluation/: metrics.json, per_image.csv, threshold_curve.csv,
        predictions.parquet (every predicted mask), overlays/
Why:    each image is scored at its mask's own size, so that figures compare.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.core import files, input_check, paths
from stages.core.errors import run
from stages.core.params import EvaluateParams, load_params
from stages.datasets.pairs import is_of_trained_site, read_pairs, read_splits
from stages.nn.inference import load_model, predictor
from stages.nn.runtime import configure_runtime
from stages.scoring import scores
from stages.scoring.metrics import number

logger = logging.getLogger(__name__)


def evaluate(
    params: EvaluateParams,
    *,
    model_path: Path = paths.MODEL,
    ingested: Path = paths.INGESTED,
    splits: Path = paths.SPLIT_PAIRS,
    metrics_path: Path = paths.METRICS,
    per_image_path: Path = paths.PER_IMAGE,
    threshold_path: Path = paths.THRESHOLD_CURVE,
    predictions_path: Path = paths.PREDICTIONS,
    overlays: Path = paths.OVERLAYS,
) -> dict[str, Any]:
    """Predicts every validation pair, scores it at its mask's own size, pictures some.

    A low score is no error here: `gate` judges. The predicted masks are kept as PNG, so
    that any image of any revision can be looked at later.

    Returns:
        The metrics, nested by name; images of sites that are held out whole count in
        their site's figures alone.

    Raises:
        PipelineError: If the model or the data cannot be read.
    """
    table = read_splits(splits)
    table["is_headline"] = is_of_trained_site(table)
    table = table[table["split"] == "validation"].reset_index(drop=True)
    model = load_model(model_path)
    _, size, _, channels = model.input_shape
    pairs = read_pairs(table["pair_id"], ingested)
    scored = scores.score_pairs(
        tqdm(pairs, "evaluate", len(table), unit="image", disable=None),
        predictor(model, flip_tta=params.flip_tta),
        params,
        image_size=size,
        channels=channels,
    )
    per_image = table.drop(columns="split").merge(
        pd.DataFrame(scored.rows), on="pair_id", validate="one_to_one"
    )
    metrics = scores.summarise(per_image, params)
    files.write_json(metrics_path, metrics, sort_keys=False)
    files.write_csv(per_image_path, per_image[scores.columns(per_image)])
    in_headline = set(per_image.loc[per_image["is_headline"], "pair_id"])
    files.write_csv(threshold_path, scored.threshold_curve(in_headline))
    _write_predictions(predictions_path, per_image["pair_id"], scored.masks)
    scores.write_overlays(
        overlays,
        lambda ids: read_pairs(ids, ingested),
        per_image=per_image,
        masks=scored.masks,
        params=params,
    )
    logger.info("%s", scores.headline(metrics))
    for name, of_site in metrics.get("by_site", {}).items():
        mean = number("dice.mean", of_site["dice"]["mean"])
        logger.info("%s: Dice %s on %d images", name, mean, of_site["num_images"])
    return metrics


def _write_predictions(
    path: Path, pair_ids: pd.Series, masks: dict[str, bytes]
) -> None:
    columns = {
        "pair_id": pa.array(list(pair_ids), pa.string()),
        "mask": pa.array([masks[pair_id] for pair_id in pair_ids], pa.binary()),
    }
    with files.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="none")


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    input_check.by_dvc()
    params = load_params()
    configure_runtime(params.train.threads)
    evaluate(params.evaluate)


if __name__ == "__main__":
    run(main)
