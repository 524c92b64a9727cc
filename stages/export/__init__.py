"""Ships the model: one network in several formats with the same answers, and its card.

Reads:  data/model/unet.keras and build.json, data/gate/verdict.json, data/ingested,
        and the summaries of the earlier stages
Writes: data/export/: unet.onnx, saved_model/, unet.tflite, the variants that
        `export.variants` names, model_card.md; data/export.json
Why:    a model that passed the gate runs without this project, carries its origin, and
        gives the answers that were judged
"""

import logging
from pathlib import Path
from typing import Any

import stages.nn  # noqa: F401  # before Keras: its start-up notices stay out of the log

# isort: split
from stages.core import files, paths, provenance
from stages.core.errors import PipelineError
from stages.core.params import EvaluateParams, ExportParams, TrainParams
from stages.datasets.pairs import is_of_trained_site, read_splits
from stages.export import card, litert, onnx_file, parity, saved_model, size, variants
from stages.export.network import folded, without_standardisation
from stages.nn import initial
from stages.nn.inference import load_model, predictor, probabilities

logger = logging.getLogger(__name__)

FILES = {"onnx": "unet.onnx", "saved_model": "saved_model", "litert": "unet.tflite"}
BATCHES = (1, 3)  # some runtimes were wrong at one of them alone


def export(
    params: ExportParams,
    *,
    train: TrainParams,
    evaluate: EvaluateParams,
    out: Path = paths.EXPORT,
) -> Path:
    """Writes all formats, or none.

    The network is read from the model; `train` is for the card and the provenance. Of
    `evaluate`, `flip_tta` is part of the network, and `Segmenter` finds `threshold` and
    `keep_components` in the provenance.

    Returns:
        `out`.

    Raises:
        PipelineError: If the gate was not passed, an input cannot be read, or a
            format differs from Keras by more than its bound.
    """
    for name in ("absl", "tensorflow", "tf2onnx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    verdict = require_passed(paths.VERDICT)
    used = evaluate.model_dump(include={"flip_tta", "keep_components", "threshold"})
    flip_tta, threshold = evaluate.flip_tta, evaluate.threshold
    model = load_model(paths.MODEL)
    slim = folded(model)
    network = probabilities(slim, flip_tta=flip_tta)
    _, side, _, channels = network.input_shape
    data = files.read_json(paths.INGESTED_SUMMARY)
    table = read_splits(paths.SPLIT_PAIRS)
    facts = provenance.facts(
        data=data,
        inputs=provenance.INPUTS,
        params={
            "evaluate": used,
            "export": params.model_dump(),
            "train": train.model_dump(),
        },
        quality=files.read_json(paths.QUALITY_REPORT),
        sites=set(table[is_of_trained_site(table)].get("site", ())),
    )
    begun_from = initial.find(Path(train.initial_weights))
    if begun_from:
        facts["initial_weights"] = provenance.of_file(begun_from)
    wanted = parity.reference(
        parity.spread(table, "validation", params.parity_images),
        predictor(model, flip_tta=flip_tta),
        size=side,
        channels=channels,
        threshold=threshold,
    )
    with files.replacing(out) as partial:
        partial.mkdir()
        places = {name: partial / file for name, file in FILES.items()}
        core, epsilon = without_standardisation(slim)
        core = probabilities(core, flip_tta=flip_tta)
        onnx_file.write(core, places["onnx"], facts=facts, epsilon=epsilon)
        saved_model.write(network, places["saved_model"], facts=facts)
        litert.write(core, places["litert"], facts=facts, epsilon=epsilon)
        loaders = {
            "onnx": onnx_file.load,
            "saved_model": saved_model.load,
            "litert": litert.load,
        }
        formats: dict[str, dict[str, float | str]] = {}
        for name, path in places.items():
            batches = BATCHES if name == "onnx" else (1,)
            predict = loaders[name](path)
            found = parity.compare(name, predict, wanted, params, batches)
            formats[name] = {
                **of_file(path),
                "max_probability_difference": found.probability,
                "max_dice_difference": found.dice,
            }
        opencv = onnx_file.load_in_opencv(places["onnx"])
        if opencv is not None:
            parity.compare("onnx in OpenCV", opencv, wanted, params, BATCHES)
        losses = variants.write(
            params,
            places["onnx"],
            table=table,
            size=side,
            channels=channels,
            threshold=threshold,
        )
        for kind, loss in losses.items():
            path = places["onnx"].with_stem(f"unet_{kind}")
            formats[kind] = {**of_file(path), "dice_loss": loss}
        values = {
            "formats": formats,
            "parameters": int(probabilities(model).count_params()),
            "multiply_adds": size.multiply_adds(
                probabilities(model, flip_tta=flip_tta)
            ),
            "image_size": side,
            "image_channels": channels,
            "num_parity_images": len(wanted.images),
        }
        text = card.render(
            **values,
            **used,
            file_names=FILES | {kind: f"unet_{kind}.onnx" for kind in losses},
            is_read_by_opencv=opencv is not None,
            inputs=facts["inputs"],
            initial_weights=facts.get("initial_weights"),
            train=train,
            data=data,
            build=files.read_json(paths.BUILD),
            split=files.read_json(paths.SPLIT_SUMMARY),
            metrics=files.read_json(paths.METRICS),
            verdict=verdict,
        )
        (partial / "model_card.md").write_text(text, encoding="utf-8", newline="\n")
    files.write_json(paths.EXPORT_SUMMARY, values)
    return out


def require_passed(path: Path) -> dict[str, Any]:
    """Reads the gate's verdict.

    Raises:
        PipelineError: If it is missing, or the gate was not passed.
    """
    verdict = files.read_json(path)
    if not isinstance(verdict, dict) or verdict.get("passed") is not True:
        raise PipelineError(
            f"{path} should say that the gate was passed but does not, so nothing is "
            "exported; improve the model, or change the bounds in gate, and run "
            "`dvc repro`"
        )
    return verdict


def of_file(path: Path) -> dict[str, float | str]:
    """Size and SHA-256 of a file, or of all files in a folder."""
    parts = path.rglob("*") if path.is_dir() else [path]
    num_bytes = sum(part.stat().st_size for part in parts if part.is_file())
    return {"bytes": num_bytes, "sha256": files.sha256(path)}
