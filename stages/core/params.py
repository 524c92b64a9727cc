"""Types and bounds of `params.yaml`, and its only reader; no default lives here.

A default in Python would be a number that DVC cannot see change.
"""

import math
import re
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
from ruamel.yaml.events import AliasEvent

from stages.core import paths
from stages.core.errors import PipelineError

STAGES = Path(__file__).parents[1]
# The YAML reader takes seconds for hostile nesting; the shipped file has 8 kB.
MAX_BYTES = 100_000
# An alias of aliases grows by powers, and one inside itself has no end.
MAX_ALIASES = 16
MAX_VALUES = 10_000
MAX_BITS = 64  # of a whole number; Python cannot even print some longer ones

# Keys of earlier versions, so that their users read the new name in the error.
RENAMED = {
    "evaluate.mirror": "evaluate.flip_tta",
    "train.gradient_steps": "train.gradient_log_interval",
    "train.half_size_fraction": "train.low_resolution_fraction",
}


def names_in(folder: Path) -> list[str]:
    """Names of the modules in a folder: a model or a layout is a file name."""
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def _file_in(folder: Path) -> AfterValidator:
    def check(name: str) -> str:
        choices = names_in(folder)
        if name not in choices:
            raise ValueError(f"should be one of {', '.join(choices)}")
        return name

    return AfterValidator(check)


def _shape(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise ValueError("should be height x width in pixels, such as 299x299")
    return text


Shape = Annotated[str, AfterValidator(_shape)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Section(BaseModel):
    """A section of `params.yaml`: unknown keys and wrong types are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class KaggleParams(Section):
    """Which data set, at which version."""

    dataset: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    version: PositiveInt


class PhantomParams(Section):
    """How many radiographs to draw, and how large."""

    pairs: PositiveInt
    seed: Seed
    image_size: Annotated[int, Field(ge=16, le=4096)]
    mask_size: Annotated[int, Field(ge=16, le=4096)]


class IngestParams(Section):
    """Where the pairs come from."""

    source: Literal["phantom", "folder", "kaggle"]
    layout: Annotated[str, _file_in(STAGES / "datasets" / "layouts")]
    target: str  # one of the layout's, which layouts/__init__.py checks
    folder: Annotated[str, Field(min_length=1)]
    classes: list[Annotated[str, Field(min_length=1)]]
    limit: Count
    shard_pairs: PositiveInt
    shard_bytes: PositiveInt
    kaggle: KaggleParams
    phantom: PhantomParams
    max_file_bytes: PositiveInt
    max_zip_members: PositiveInt
    max_zip_bytes: PositiveInt


class ValidateParams(Section):
    """What a usable pair looks like."""

    classes: list[Annotated[str, Field(min_length=1)]]
    image_mask_shapes: Annotated[
        list[Annotated[list[Shape], Field(min_length=2, max_length=2)]],
        Field(min_length=1),
    ]
    mask_foreground: Annotated[int, Field(ge=1, le=255)]
    foreground_min: Fraction
    foreground_max: Fraction
    contrast_min: Annotated[float, Field(ge=0, le=128)]
    num_components_max: PositiveInt
    min_pairs: PositiveInt
    max_rejected_fraction: Fraction
    max_image_pixels: PositiveInt
    thumbnails: Count
    data_docs: bool

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "ValidateParams":
        if self.foreground_min >= self.foreground_max:
            raise ValueError(
                f"foreground_min ({self.foreground_min}) should be less than "
                f"foreground_max ({self.foreground_max})"
            )
        return self


class SplitParams(Section):
    """How the accepted pairs are cut in two."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    folds: Count
    fold: Count
    seed: Seed
    near_copy_bits: Annotated[int, Field(ge=0, le=64)]
    use_given: bool
    given_held_out: Literal["validation", "test"]

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitParams":
        if self.use_given and self.folds:
            raise ValueError(
                "use_given needs folds 0: the data set's own sides are no folds"
            )
        if self.folds == 1:
            raise ValueError("folds should be 0 (no folds) or at least 2, found 1")
        if self.fold >= max(self.folds, 1):
            raise ValueError(
                f"fold should be less than folds ({self.folds}), found {self.fold}"
            )
        return self


class AugmentationParams(Section):
    """How far a training pair may be moved and its greys bent."""

    flip_probability: Fraction
    rotation_degrees: Annotated[float, Field(ge=0, le=45)]
    shift_fraction: Annotated[float, Field(ge=0, le=0.5)]
    scale_fraction: Annotated[float, Field(ge=0, lt=0.9)]
    aspect_fraction: Annotated[float, Field(ge=0, lt=0.9)]
    brightness: Fraction
    contrast: Annotated[float, Field(ge=0, lt=1)]
    gamma: Annotated[float, Field(ge=0, le=2)]
    bias_field: Annotated[float, Field(ge=0, lt=1)]
    blur: Fraction
    noise: Fraction
    invert_probability: Fraction


class TrainParams(Section):
    """The network, its loss and its schedule."""

    architecture: Annotated[str, _file_in(STAGES / "nn" / "models")]
    image_size: Annotated[int, Field(ge=8, le=2048)]
    image_channels: Literal[1, 3]
    filters: Annotated[list[PositiveInt], Field(min_length=2, max_length=8)]
    input_normalization: Literal["none", "standardize"]
    batch_norm_momentum: Annotated[float, Field(gt=0, lt=1)]
    supervision_weights: Annotated[
        list[Annotated[float, Field(ge=0)]], Field(min_length=1)
    ]
    loss: Literal["bce", "dice", "bce_dice"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    learning_rate_schedule: Literal["constant", "cosine", "polynomial", "one_cycle"]
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)]
    beta_1: Annotated[float, Field(ge=0, lt=1)]
    beta_2: Annotated[float, Field(ge=0, lt=1)]
    ema_momentum: Annotated[float, Field(ge=0, lt=1)]
    batch_size: PositiveInt
    epochs: PositiveInt
    low_resolution_fraction: Annotated[float, Field(ge=0, lt=1)]
    early_stopping_patience: Count
    monitor_fraction: Annotated[float, Field(ge=0, lt=1)]
    seed: Seed
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"]
    jit_compile: bool
    threads: PositiveInt
    gradient_log_interval: Count
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
                f"image_size should be a multiple of {step} with {len(self.filters)} "
                f"filters{halved} (each stage halves it), found {self.image_size}"
            )
        levels = len(self.filters) - 1
        if len(self.supervision_weights) > levels:
            raise ValueError(
                f"supervision_weights should have at most {levels} entries, one a "
                f"decoder level, found {len(self.supervision_weights)}"
            )
        if self.supervision_weights[0] <= 0:
            raise ValueError(
                "supervision_weights should start with a positive weight: the finest "
                f"level is the one that ships, found {self.supervision_weights[0]}"
            )
        if self.early_stopping_patience and not self.monitor_fraction:
            raise ValueError(
                "early_stopping_patience needs a monitor_fraction above 0: without "
                "monitored pairs there is no Dice to wait for"
            )
        return self


class EvaluateParams(Section):
    """How the held-out pairs are scored and pictured."""

    threshold: Annotated[float, Field(gt=0, lt=1)]
    flip_tta: bool
    keep_components: Count
    bootstrap_resamples: Annotated[int, Field(ge=100)]
    bootstrap_seed: Seed
    overlays_worst: Count
    overlays_best: Count
    overlays_median: Count
    batch_size: PositiveInt


def _by_metric_name(bounds: Any) -> Any:
    """`{"dice": {"mean": 0.95}}` as `{"dice.mean": 0.95}`; both may be written.

    Nested is what `dvc exp run -S gate.min.dice.mean=0.9` can set. Where a name is
    written twice, the later line holds.
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
    """Bounds on metrics by name; a metric that is missing or undefined fails."""

    min: Bounds
    max: Bounds


class ExportParams(Section):
    """How far an exported file may differ from the Keras model."""

    parity_images: PositiveInt
    max_probability_difference: Annotated[float, Field(ge=0, le=1)]
    max_dice_difference: Annotated[float, Field(ge=0, le=1)]


class Params(Section):
    """All of `params.yaml`."""

    ingest: IngestParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
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
        PipelineError: One sentence that names the first key that is unknown,
            missing, of the wrong type or out of bounds.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing here; run from the root of the repository"
        ) from None
    if len(content) > MAX_BYTES or content.count(b"[") + content.count(b"{") > 500:
        raise PipelineError(
            f"{path} should be a page of settings but has {len(content)} bytes and "
            "deep brackets; restore it with `git checkout params.yaml`"
        )
    try:
        text = content.decode("utf-8")
        if content.count(b"*") > MAX_ALIASES:
            events = YAML(typ="safe", pure=True).parse(text)
            if sum(isinstance(event, AliasEvent) for event in events) > MAX_ALIASES:
                raise ValueError(f"it has more than {MAX_ALIASES} aliases")
        values = YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # its reader raises what its parts raise
        reason = " ".join(str(error).split())
        raise PipelineError(f"{path} should be YAML but is not: {reason}") from None
    return parse_params(values, name=str(path))


def parse_params(values: Any, *, name: str = "params.yaml") -> Params:
    """Checks values that were already read; errors as in `load_params`."""
    if not isinstance(values, dict):
        raise PipelineError(
            f"{name} should hold one section a stage, found {_short(values)}"
        )
    _refuse_monsters(values, name)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise PipelineError(f"{name}: {_sentence(error)}") from None


def _refuse_monsters(values: Any, name: str) -> None:
    """Refuses what nothing below could walk through or print."""
    waiting, count = [values], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise PipelineError(f"{name} holds a number of {value.bit_length()} bits")
        if count > MAX_VALUES:
            raise PipelineError(
                f"{name} should be a page of settings but holds more than {MAX_VALUES} "
                "values, or an alias inside itself"
            )


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation, as `section.key should …, found …`.

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
            message = problem["msg"].removeprefix("Input ").removeprefix("String ")
            return f"{key} {message[0].lower()}{message[1:]}, found {found}"


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
