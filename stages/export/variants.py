"""Smaller ONNX files, each with its own bound on the Dice that it may lose.

fp16: weights and arithmetic in 16 bits. int8: static quantisation per channel,
calibrated on training rows; the first and the last convolution stay in float.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pandas as pd

from stages.core.errors import PipelineError
from stages.core.imaging import Float
from stages.core.params import ExportParams
from stages.export import onnx_file, parity

logger = logging.getLogger(__name__)


def write(
    params: ExportParams,
    source: Path,
    *,
    table: pd.DataFrame,
    size: int,
    channels: int,
    threshold: float,
) -> dict[str, float]:
    """Writes `unet_KIND.onnx` beside the source for each of `export.variants`.

    Training rows of the split table calibrate, held-out rows are scored. `size` is the
    side of the network's input in pixels.

    Returns:
        By kind: mean Dice of the float32 source minus that of the variant.

    Raises:
        PipelineError: If a variant loses more Dice than its bound allows.
    """
    losses: dict[str, float] = {}
    for kind in params.variants:
        path = source.with_stem(f"{source.stem}_{kind}")
        if kind == "fp16":
            model = _to_fp16(onnx.load(source))
        else:
            chosen = parity.spread(table, "train", params.calibration_images)
            images = parity.read(chosen, size=size, channels=channels)
            model = _to_int8(source, path, (image for image, _ in images))
        path.write_bytes(model.SerializeToString(deterministic=True))
        predicts = [onnx_file.load(source), onnx_file.load(path)]
        scores = [
            [parity.score(mask, run(image)[0, :, :, 0], threshold) for run in predicts]
            for image, mask in parity.read(
                table.loc[table["split"] == "validation", "pair_id"],
                size=size,
                channels=channels,
            )
        ]
        before, after = np.mean(scores, axis=0)
        losses[kind] = round(float(before - after), 6)
        bound = getattr(params, f"{kind}_max_dice_loss")
        logger.info("%s: Dice %.4f, in float32 %.4f", path.name, after, before)
        if not losses[kind] <= bound:
            raise PipelineError(
                f"export: {path.name} loses {losses[kind]:.6f} of Dice, more than "
                f"export.{kind}_max_dice_loss ({bound:g}); raise that bound or take "
                f"{kind} out of export.variants"
            )
    return losses


def _to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Sums over all pixels of an image overflow in 16 bits.
    converted: onnx.ModelProto = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=["InstanceNormalization"]
    )
    return converted


def _to_int8(source: Path, path: Path, images: Iterator[Float]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Float] | None:
            image = next(images, None)
            return None if image is None else {"image": image}

    nodes = onnx.load(source).graph.node
    convs = [node.name for node in nodes if "Conv" in node.op_type]
    norms = [node.name for node in nodes if node.op_type == "InstanceNormalization"]
    logging.disable(logging.WARNING)  # advice to optimise a graph that is optimised
    try:
        quantize_static(
            source,
            path,
            Images(),
            per_channel=True,
            nodes_to_exclude=[convs[0], convs[-1], *norms],
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(path)
