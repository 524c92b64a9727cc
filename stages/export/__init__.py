"""What is served: the model in three formats that answer alike, and its card.

Reads:  data/model/unet.keras and build.json, data/gate/verdict.json, and what the
        earlier stages say of data, split and metrics
Writes: data/export/: unet.onnx, saved_model/, unet.tflite, model_card.md;
        data/export.json
Why:    so that a model that passed the gate runs without this project, says where it
        came from, and gives the answers that were judged
"""

import logging
from pathlib import Path
from typing import Any

import stages.nn  # noqa: F401  # before Keras: its start-up notices stay out of the log

# isort: split
from stages.core import files, paths, provenance
from stages.core.errors import PipelineError
from stages.core.imaging import Predictor
from stages.core.params import ExportParams, TrainParams
from stages.datasets.pairs import read_splits
from stages.export import card, litert, onnx_file, parity, saved_model, size
from stages.export.network import folded, without_standardisation
from stages.nn.inference import load_model, predictor, probabilities

logger = logging.getLogger(__name__)

FILES = {"onnx": "unet.onnx", "saved_model": "saved_model", "litert": "unet.tflite"}


def export(
    params: ExportParams,
    *,
    train: TrainParams,
    threshold: float,
    flip_tta: bool = False,
    keep_components: int = 0,
    model_path: Path = paths.MODEL,
    build: Path = paths.BUILD,
    metrics: Path = paths.METRICS,
    verdict: Path = paths.VERDICT,
    ingested: Path = paths.INGESTED,
    ingested_summary: Path = paths.INGESTED_SUMMARY,
    quality: Path = paths.QUALITY_REPORT,
    splits: Path = paths.SPLIT_PAIRS,
    split_summary: Path = paths.SPLIT_SUMMARY,
    requirements: Path = paths.LOCK,
    out: Path = paths.EXPORT,
    summary: Path = paths.EXPORT_SUMMARY,
) -> Path:
    """Writes all formats, or none.

    Args:
        params: The `export` section.
        train: The `train` section, for the card and the provenance alone: what the
            network looks like is read from the model.
        threshold: A pixel at least this probable is foreground, as in evaluate.
        flip_tta: As in evaluate; it is in the exported network.
        keep_components: As in evaluate; it is in the SavedModel's masks, and where
            the provenance is read.
        model_path: What train wrote.
        build: What it was built with.
        metrics: What evaluate wrote.
        verdict: What gate wrote.
        ingested: Shards, for the images that formats are compared on.
        ingested_summary: What ingest says of the data.
        quality: What validate says of the data: what is usual in it is carried along.
        splits: Split table.
        split_summary: What split says of it.
        requirements: The lock of the environment.
        out: Folder to write.
        summary: JSON to write: size and parity of each format.

    Returns:
        `out`.

    Raises:
        PipelineError: If the gate was not passed, an input cannot be read, or a
            format does not answer as Keras does.
    """
    for chatter in ("absl", "tensorflow", "tf2onnx"):
        logging.getLogger(chatter).setLevel(logging.WARNING)
    judged = require_passed(verdict)
    model = load_model(model_path)
    network = probabilities(folded(model), flip_tta=flip_tta)
    _, side, _, channels = network.input_shape
    data = files.read_json(ingested_summary)
    inputs = {
        "build": build,
        "data": ingested_summary,
        "metrics": metrics,
        "model": model_path,
        "quality": quality,
        "requirements": requirements,
        "split": splits,
        "split_summary": split_summary,
        "verdict": verdict,
    }
    settings = {
        "evaluate": {
            "keep_components": keep_components,
            "flip_tta": flip_tta,
            "threshold": threshold,
        },
        "export": params.model_dump(),
        "train": train.model_dump(),
    }
    facts = provenance.facts(
        data=data, inputs=inputs, params=settings, quality=files.read_json(quality)
    )
    keras_predict = predictor(model, flip_tta=flip_tta)
    wanted = parity.reference(
        parity.chosen(read_splits(splits), params.parity_images),
        keras_predict,
        size=side,
        channels=channels,
        threshold=threshold,
        ingested=ingested,
    )
    with files.replacing(out) as partial:
        partial.mkdir()
        predictors: dict[str, Predictor] = {}
        formats: dict[str, dict[str, Any]] = {}
        for name, file_name in FILES.items():
            path = partial / file_name
            if name == "onnx":
                core, epsilon = without_standardisation(folded(model))
                core = probabilities(core, flip_tta=flip_tta)
                onnx_file.write(core, path, facts=facts, epsilon=epsilon)
                predictors[name] = onnx_file.load(path)
            else:
                module = saved_model if name == "saved_model" else litert
                module.write(network, path, facts=facts)
                predictors[name] = module.load(path)
            found = parity.compare(name, predictors[name], wanted, params)
            formats[name] = {
                "bytes": num_bytes(path),
                "sha256": files.sha256(path),
                "max_probability_difference": found.probability,
                "max_dice_difference": found.dice,
            }
            logger.info("%s: %s bytes", file_name, f"{formats[name]['bytes']:,}")
        values = {
            "formats": formats,
            "parameters": size.parameters(probabilities(model)),
            "multiply_adds": size.multiply_adds(
                probabilities(model, flip_tta=flip_tta)
            ),
            "image_size": side,
            "image_channels": channels,
            "num_parity_images": len(wanted.images),
        }
        text = card.render(
            **values,
            file_names=FILES,
            inputs=facts["inputs"],
            train=train,
            threshold=threshold,
            flip_tta=flip_tta,
            keep_components=keep_components,
            data=data,
            build=files.read_json(build),
            split=files.read_json(split_summary),
            metrics=files.read_json(metrics),
            verdict=judged,
        )
        (partial / "model_card.md").write_text(text, encoding="utf-8", newline="\n")
        timed = {"keras": keras_predict, **predictors}
        parity.log_latency(timed, wanted.images[0])
    files.write_json(summary, values)
    return out


def require_passed(path: Path) -> dict[str, Any]:
    """The gate's verdict.

    Raises:
        PipelineError: If there is none, or it is against the model.
    """
    judged = files.read_json(path)
    if not isinstance(judged, dict) or judged.get("passed") is not True:
        raise PipelineError(
            f"{path} should say that the gate was passed but does not, so nothing is "
            "exported; mend the model, or the bounds in gate, and run `dvc repro`"
        )
    return judged


def num_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
