"""Types, bounds and descriptions of `params.yaml`, and its only reader.

No default lives here: DVC could not see it change.
"""

import copy
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core import paths, plugins
from stages.core.errors import PipelineError

STAGES = Path(__file__).parents[1]

# Keys of earlier versions, so that their users read the new name in the error.
RENAMED = {
    "evaluate.mirror": "evaluate.flip_tta",
    "split.given_held_out": "split.official_held_out",
    "split.near_copy_bits": "split.near_duplicate_max_distance",
    "split.use_given": "split.use_official_split",
    "train.gradient_steps": "train.gradient_log_interval",
    "train.half_size_fraction": "train.low_resolution_fraction",
}


def _one_of(names: Callable[[Path], list[str]], place: Path) -> AfterValidator:
    def check(name: str) -> str:
        choices = names(place)
        if name not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return name

    return AfterValidator(check)


def _shape(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise ValueError("must be height x width in pixels, such as 299x299")
    return text


def _place(text: str) -> str:
    if not text or text.startswith("~"):
        raise ValueError(
            "must name a directory or a zip, without ~ (DVC does not expand it)"
        )
    return text


Shape = Annotated[str, AfterValidator(_shape)]
Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A section of `params.yaml`; refuses unknown keys and wrong types.

    The description of a field is also its comment in `params.yaml` and its row in
    `docs/reference/params.md`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class KaggleParams(Section):
    """The data set that the source `kaggle` downloads."""

    dataset: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    version: PositiveInt = Field(
        description="version of the data set; pinned, so that it never changes silently"
    )


class PhantomParams(Section):
    """The radiographs that the source `phantom` draws."""

    pairs: PositiveInt = Field(description="number of radiographs, over all classes")
    seed: Seed = Field(description="the same seed gives the same bytes")
    image_size: int = Field(ge=16, le=4096, description="side of an image, pixels")
    mask_size: int = Field(ge=16, le=4096, description="side of a mask, pixels")


class IngestParams(Section):
    """Where the image/mask pairs come from."""

    source: Annotated[str, _one_of(plugins.names, STAGES / "datasets" / "sources")] = (
        Field(
            description="phantom (synthetic), folder (your own) or kaggle (downloaded)"
        )
    )
    layout: Annotated[str, _one_of(plugins.names, STAGES / "datasets" / "layouts")] = (
        Field(
            description="arrangement of the files: a module in stages/datasets/layouts"
        )
    )
    # layouts/__init__.py checks it against the layout's targets.
    target: str = Field(
        description='kind of mask, if the layout has several; "" is its first'
    )
    folder: Annotated[str, AfterValidator(_place)] = Field(
        description="directory or zip that the source folder reads"
    )
    classes: list[Name] = Field(description="class folders to read; [] reads all")
    limit: Count = Field(description="maximum number of pairs per class; 0 reads all")
    shard_pairs: PositiveInt = Field(
        description="maximum number of pairs per Parquet shard"
    )
    shard_bytes: PositiveInt = Field(
        description="maximum bytes of images and masks per shard; limits memory"
    )
    kaggle: KaggleParams
    phantom: PhantomParams
    max_file_bytes: PositiveInt = Field(description="larger files are rejected unread")
    max_zip_members: PositiveInt = Field(
        description="zips that list more files are refused"
    )
    max_zip_bytes: PositiveInt = Field(
        description="zips that unpack to more bytes are refused"
    )


class ValidateParams(Section):
    """What a usable pair looks like."""

    classes: list[Name] = Field(description="classes that may appear; [] accepts all")
    image_mask_shapes: list[
        Annotated[list[Shape], Field(min_length=2, max_length=2)]
    ] = Field(
        min_length=1,
        description="allowed [image, mask] sizes, height x width in pixels",
    )
    mask_foreground: int = Field(
        ge=1, le=255, description="foreground value in masks; all else must be 0"
    )
    foreground_min: Fraction = Field(
        description="smallest foreground share of a mask; ignored for lesions"
    )
    foreground_max: Fraction = Field(description="largest foreground share of a mask")
    contrast_min: float = Field(
        ge=0,
        le=128,
        description="smallest standard deviation of an image's grey values",
    )
    num_components_max: PositiveInt = Field(
        description="masks with more separate regions get a warning"
    )
    min_pairs: PositiveInt = Field(
        description="the stage fails with fewer accepted pairs"
    )
    max_rejected_fraction: Fraction = Field(
        description="the stage fails if a larger share of the pairs is rejected"
    )
    max_image_pixels: PositiveInt = Field(
        description="images with more pixels are rejected before they are decoded"
    )
    thumbnails: Count = Field(
        description="number of rejected pairs pictured in data/quality/docs"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "ValidateParams":
        if self.foreground_min >= self.foreground_max:
            raise ValueError(
                f"foreground_min ({self.foreground_min}) must be less than "
                f"foreground_max ({self.foreground_max})"
            )
        return self


class SplitParams(Section):
    """How the accepted pairs are divided into train and validation."""

    validation_fraction: float = Field(
        gt=0, lt=1, description="share of the groups to hold out, each by its own hash"
    )
    folds: Count = Field(
        description="number of folds, at least 2; 0 uses validation_fraction instead"
    )
    fold: Count = Field(description="fold to hold out, from 0 to folds - 1")
    seed: Seed = Field(description="another seed holds out other groups")
    near_duplicate_max_distance: int = Field(
        ge=0,
        le=64,
        description="images whose hashes differ in at most this many of 256 bits are "
        "near-duplicates",
    )
    use_official_split: bool = Field(
        description="whether to use the split that the data set itself defines"
    )
    official_held_out: Literal["validation", "test"] = Field(
        description="official side to hold out; test also trains on validation"
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitParams":
        if self.use_official_split and self.folds:
            raise ValueError(
                "use_official_split needs folds 0: an official split has no folds"
            )
        if self.folds == 1:
            raise ValueError("folds must be 0 (no folds) or at least 2, found 1")
        if self.fold >= max(self.folds, 1):
            raise ValueError(
                f"fold must be less than folds ({self.folds}), found {self.fold}"
            )
        return self


class AugmentationParams(Section):
    """How far the geometry and the grey values of a training pair may change."""

    flip_probability: Fraction = Field(
        description="probability of a left-right flip; the heart is not symmetric"
    )
    rotation_degrees: float = Field(ge=0, le=45, description="largest rotation")
    shift_fraction: float = Field(
        ge=0, le=0.5, description="largest shift, as a share of the side"
    )
    scale_fraction: float = Field(
        ge=0, lt=0.9, description="largest change of the scale"
    )
    aspect_fraction: float = Field(
        ge=0, lt=0.9, description="largest change of the aspect ratio"
    )
    brightness: Fraction = Field(
        description="largest offset, as a share of the grey range"
    )
    contrast: BelowOne = Field(description="largest change of the contrast")
    gamma: float = Field(ge=0, le=2, description="largest absolute logarithm of gamma")
    bias_field: BelowOne = Field(
        description="largest uneven exposure, as a change of the grey values"
    )
    blur: Fraction = Field(description="largest share of a 5x5 blur")
    noise: Fraction = Field(
        description="largest standard deviation of noise, as a share of the grey range"
    )
    invert_probability: Fraction = Field(
        description="probability of a negative image; archives contain both"
    )


class TrainParams(Section):
    """The network, its loss and its schedule."""

    architecture: Annotated[str, _one_of(plugins.names, STAGES / "nn" / "models")] = (
        Field(description="network: a module in stages/nn/models")
    )
    image_size: int = Field(
        ge=8,
        le=2048,
        description="side of the network's input, pixels; a multiple of 16 or more, by "
        "the number of filters",
    )
    image_channels: Literal[1, 3] = Field(description="1 (grey) or 3 (colour)")
    filters: list[PositiveInt] = Field(
        min_length=2,
        max_length=8,
        description="filters of each encoder stage, the middle last",
    )
    input_normalization: Literal["none", "standardize"] = Field(
        description="standardize (each image to mean 0 and variance 1) or none"
    )
    batch_norm_momentum: float = Field(
        gt=0, lt=1, description="of the moving averages; the article has 0.99"
    )
    supervision_weights: list[Annotated[float, Field(ge=0)]] = Field(
        min_length=1,
        description="loss weight per decoder level, finest first; [1.0]: a plain U-Net",
    )
    loss: Annotated[str, _one_of(plugins.functions, STAGES / "nn" / "losses.py")] = (
        Field(description="loss: a function in stages/nn/losses.py")
    )
    learning_rate: float = Field(gt=0, le=10, description="highest rate of Adam")
    learning_rate_schedule: Literal["constant", "cosine", "polynomial", "one_cycle"] = (
        Field(description="constant, cosine, polynomial or one_cycle")
    )
    warmup_fraction: BelowOne = Field(
        description="share of the steps that raise the rate to learning_rate"
    )
    beta_1: BelowOne = Field(description="decay of Adam's first moment")
    beta_2: BelowOne = Field(description="decay of Adam's second moment")
    ema_momentum: BelowOne = Field(
        description="of the moving average of the weights; 0 keeps the last weights"
    )
    batch_size: PositiveInt = Field(description="pairs per step, over all devices")
    epochs: PositiveInt = Field(description="passes over the training pairs")
    low_resolution_fraction: BelowOne = Field(
        description="share of the epochs, from the first, at half of image_size"
    )
    early_stopping_patience: Count = Field(
        description="epochs to wait for a better monitored Dice; 0 never stops early"
    )
    monitor_fraction: BelowOne = Field(
        description="share of training groups that select the checkpoint; 0: the last"
    )
    seed: Seed = Field(description="of the weights, the order and the augmentation")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        description="float32, or mixed_float16 or mixed_bfloat16 on a GPU"
    )
    jit_compile: bool = Field(
        description="whether to use XLA: faster on a GPU, results not reproducible"
    )
    threads: PositiveInt = Field(
        description="CPU threads; another number changes the last digits"
    )
    gradient_log_interval: Count = Field(
        description="steps between rows of data/model/gradients.csv; 0 writes none"
    )
    augmentation: AugmentationParams

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TrainParams":
        step = 2 ** (len(self.filters) - 1)
        halved = (
            " and low_resolution_fraction above 0"
            if self.low_resolution_fraction
            else ""
        )
        step *= 2 if halved else 1
        if self.image_size % step:
            raise ValueError(
                f"image_size must be a multiple of {step} with {len(self.filters)} "
                f"filters{halved} (each stage halves it), found {self.image_size}"
            )
        levels = len(self.filters) - 1
        if len(self.supervision_weights) > levels:
            raise ValueError(
                f"supervision_weights must have at most {levels} entries, one per "
                f"decoder level, found {len(self.supervision_weights)}"
            )
        if self.supervision_weights[0] <= 0:
            raise ValueError(
                "supervision_weights must start with a positive weight, because the "
                f"finest level is exported, found {self.supervision_weights[0]}"
            )
        if self.early_stopping_patience and not self.monitor_fraction:
            raise ValueError(
                "early_stopping_patience needs a monitor_fraction above 0: without "
                "monitored pairs there is no Dice to wait for"
            )
        return self


class EvaluateParams(Section):
    """How the held-out pairs are scored and pictured."""

    threshold: float = Field(
        gt=0, lt=1, description="smallest probability of a foreground pixel"
    )
    flip_tta: bool = Field(
        description="whether to average the predictions of an image and its flip"
    )
    keep_components: Count = Field(
        description="number of largest regions to keep per mask; 0 keeps all"
    )
    bootstrap_resamples: int = Field(
        ge=100, description="number of resamples of groups for the 95 % intervals"
    )
    bootstrap_seed: Seed = Field(description="of the resampling")
    overlays_worst: Count = Field(description="number of overlays with the lowest Dice")
    overlays_best: Count = Field(description="number of overlays with the highest Dice")
    overlays_median: Count = Field(description="number of overlays around the median")
    batch_size: PositiveInt = Field(description="images per prediction step")


def _by_metric_name(bounds: Any) -> Any:
    """`{"dice": {"mean": 0.95}}` as `{"dice.mean": 0.95}`; both forms are allowed.

    The nested form is what `dvc exp run -S gate.min.dice.mean=0.9` sets. If a name
    occurs twice, the later one counts.
    """
    if not isinstance(bounds, dict):
        return bounds
    flat: dict[str, Any] = {}
    for name, bound in bounds.items():
        inner = _by_metric_name(bound)
        for key, value in inner.items() if isinstance(inner, dict) else [("", inner)]:
            full = f"{name}.{key}" if key else str(name)
            flat.pop(full, None)
            flat[full] = value
    return flat


Bounds = Annotated[dict[str, Finite], BeforeValidator(_by_metric_name)]


class GateParams(Section):
    """Bounds on metrics; a metric that is missing or undefined fails."""

    min: Bounds = Field(description="smallest value that passes, by metric name")
    max: Bounds = Field(description="largest value that passes, by metric name")


class ExportParams(Section):
    """How far an exported file may differ from the Keras model."""

    parity_images: PositiveInt = Field(
        description="number of held-out images to compare each format on"
    )
    max_probability_difference: Fraction = Field(
        description="largest difference of a probability that passes"
    )
    max_dice_difference: Fraction = Field(
        description="largest difference of Dice that passes"
    )
    variants: list[Literal["fp16", "int8"]] = Field(
        description="smaller ONNX files to write as well: fp16, int8"
    )
    calibration_images: PositiveInt = Field(
        description="number of training images that calibrate int8"
    )
    fp16_max_dice_loss: Fraction = Field(
        description="largest loss of mean Dice that fp16 may have"
    )
    int8_max_dice_loss: Fraction = Field(
        description="largest loss of mean Dice that int8 may have"
    )


class Params(Section):
    """All of `params.yaml`."""

    ingest: IngestParams
    validate_: ValidateParams = Field(alias="validate")
    split: SplitParams
    train: TrainParams
    evaluate: EvaluateParams
    gate: GateParams
    export: ExportParams


def load_params(path: Path = paths.PARAMS) -> Params:
    """Reads and checks `params.yaml`.

    Args:
        path: A YAML 1.2 file, read as DVC reads it.

    Raises:
        PipelineError: If a key is unknown, missing, of the wrong type or out of
            bounds; one sentence names the first such key.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing here; run from the root of the repository"
        ) from None
    try:
        values = YAML(typ="safe", pure=True).load(content.decode("utf-8"))
    except Exception as error:  # its reader raises what its parts raise
        reason = " ".join(str(error).split())
        raise PipelineError(f"{path} must be YAML: {reason}") from None
    return parse_params(values, name=str(path))


def parse_params(values: Any, *, name: str = "params.yaml") -> Params:
    """Checks values that were already read; errors as in `load_params`."""
    if not isinstance(values, dict):
        raise PipelineError(
            f"{name} must hold one section per stage, found {_short(values)}"
        )
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise PipelineError(f"{name}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation, as `section.key must …, found …`.

    A renamed key comes before the others: the new one is missing because of it.
    """
    problems = {
        ".".join(map(str, problem["loc"])): problem
        for problem in reversed(error.errors(include_url=False))
    }
    for old in problems.keys() & RENAMED.keys():
        return f"{old} is called {RENAMED[old]} now; rename it"
    key, problem = list(problems.items())[-1]
    found = _short(problem["input"])
    match problem["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key; remove it or correct its spelling"
        case "missing":
            return f"{key} is missing; add it (the shipped file shows every key)"
        case "value_error":
            message = problem["msg"].removeprefix("Value error, ")
            tail = (
                "" if "found" in message or "needs" in message else f", found {found}"
            )
            return f"{key}: {message}{tail}"
        case _:
            # Pydantic: "Input should be greater than 0", "String should match …"
            expected = re.sub(r"^.*?should ", "", problem["msg"])
            return f"{key} must {expected}, found {found}"


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def with_values(document: Any, values: Mapping[str, Any]) -> Any:
    """Sets params by their dotted names in a copy of what `params.yaml` holds.

    Args:
        document: What a YAML loader read; a round-trip loader's comments are kept.
        values: Dotted names, such as `train.epochs`, to values.

    Returns:
        The copy, in which missing sections are made. It is not validated.

    Raises:
        PipelineError: If a name goes through a value that is not a section.
    """
    document = copy.deepcopy(document)
    for name, value in values.items():
        *parents, last = name.split(".")
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise PipelineError(
                    f"params.yaml has no {name}: {parent} is a value, not a section; "
                    "correct the name"
                )
        section[last] = copy.deepcopy(value)
    return document


def text_with_values(text: str, values: Mapping[str, Any]) -> str:
    """Sets params by dotted name in the text of a `params.yaml`; keeps its comments.

    Args:
        text: The file's text.
        values: Dotted names to values; none leave the text as it is.

    Raises:
        PipelineError: If the text is not YAML, a name is unknown, or a value is of the
            wrong type or out of bounds.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(with_values(_read(yaml, text), values), stream)
    parse_text(stream.getvalue())
    return stream.getvalue() if values else text


def parse_text(text: str) -> Params:
    """Checks the text of a `params.yaml`; errors as in `load_params`."""
    return parse_params(_read(YAML(typ="safe", pure=True), text))


def _read(yaml: YAML, text: str) -> Any:
    try:
        return yaml.load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise PipelineError(
            f"params.yaml should be YAML but is not: {reason}"
        ) from None
