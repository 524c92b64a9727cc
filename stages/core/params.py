"""Types and bounds of `params.yaml`, and its only reader.

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
    def check(value: str | list[str]) -> str | list[str]:
        choices = names(place)
        if not set(_listed(value)) <= set(choices):
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return AfterValidator(check)


def _shape(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise ValueError("must be height x width in pixels, such as 299x299")
    return text


def _place(text: str) -> str:
    if not text or text.startswith("~"):
        raise ValueError(
            "must name a file or a folder, without ~ (DVC does not expand it)"
        )
    return text


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


SITES = "sites"  # the layout of a folder of data sets, which has no module
LayoutName = Annotated[str, _one_of(plugins.names, STAGES / "datasets" / "layouts")]
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

    The comments in `params.yaml` describe the fields.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )


class KaggleParams(Section):
    """The data set that the source `kaggle` downloads."""

    dataset: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    version: PositiveInt


class PhantomParams(Section):
    """The radiographs that the source `phantom` draws."""

    pairs: PositiveInt
    seed: Seed
    image_size: int = Field(ge=16, le=4096)
    mask_size: int = Field(ge=16, le=4096)


class IngestParams(Section):
    """The source of the image/mask pairs."""

    source: Annotated[
        list[str],
        Field(min_length=1),
        BeforeValidator(_listed),
        _one_of(plugins.names, STAGES / "datasets" / "sources"),
    ]  # several in the layout sites
    layout: Annotated[
        str,
        _one_of(
            lambda place: [*plugins.names(place), SITES],
            STAGES / "datasets" / "layouts",
        ),
    ]
    allow_mixed_masks: bool
    target: str  # layouts/__init__.py checks it against the layout's targets
    folder: Annotated[str, AfterValidator(_place)]
    classes: list[Name]
    limit: Count
    shard_pairs: PositiveInt
    shard_bytes: PositiveInt
    kaggle: KaggleParams
    phantom: PhantomParams
    max_file_bytes: PositiveInt
    max_zip_members: PositiveInt
    max_zip_bytes: PositiveInt

    @model_validator(mode="after")
    def _several_sources_are_sites(self) -> "IngestParams":
        if len(self.source) > 1 and self.layout != SITES:
            raise ValueError(
                f"source needs the layout {SITES} to list several, found {self.layout}"
            )
        return self


class ValidateParams(Section):
    """The bounds of a usable pair."""

    classes: list[Name]
    image_mask_shapes: list[
        Annotated[list[Shape], Field(min_length=2, max_length=2)]
    ] = Field(min_length=1)
    mask_foreground: int = Field(ge=1, le=255)
    foreground_min: Fraction
    foreground_max: Fraction
    contrast_min: float = Field(ge=0, le=128)
    num_components_max: PositiveInt
    min_pairs: PositiveInt
    max_rejected_fraction: Fraction
    max_image_pixels: PositiveInt
    thumbnails: Count

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "ValidateParams":
        if self.foreground_min >= self.foreground_max:
            raise ValueError(
                f"foreground_min ({self.foreground_min}) must be less than "
                f"foreground_max ({self.foreground_max})"
            )
        return self


class SplitParams(Section):
    """The division of accepted pairs into training and validation."""

    validation_fraction: float = Field(gt=0, lt=1)
    folds: Count
    fold: Count
    seed: Seed
    near_duplicate_max_distance: int = Field(ge=0, le=64)
    use_official_split: bool
    official_held_out: Literal["validation", "test"]
    hold_out_sites: list[Name]

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
    """Limits of the random changes to a training pair's geometry and grey values."""

    flip_probability: Fraction
    rotation_degrees: float = Field(ge=0, le=45)
    shift_fraction: float = Field(ge=0, le=0.5)
    scale_fraction: float = Field(ge=0, lt=0.9)
    aspect_fraction: float = Field(ge=0, lt=0.9)
    brightness: Fraction
    contrast: BelowOne
    gamma: float = Field(ge=0, le=2)
    bias_field: BelowOne
    blur: Fraction
    noise: Fraction
    invert_probability: Fraction


class TrainParams(Section):
    """The network, its loss and its schedule."""

    architecture: Annotated[str, _one_of(plugins.names, STAGES / "nn" / "models")]
    image_size: int = Field(ge=8, le=2048)
    image_channels: Literal[1, 3]
    filters: list[PositiveInt] = Field(min_length=2, max_length=8)
    input_normalization: Literal["none", "standardize"]
    batch_norm_momentum: float = Field(gt=0, lt=1)
    supervision_weights: list[Annotated[float, Field(ge=0)]] = Field(min_length=1)
    loss: Annotated[str, _one_of(plugins.functions, STAGES / "nn" / "losses.py")]
    optimizer: Annotated[
        str, _one_of(plugins.functions, STAGES / "nn" / "optimizers.py")
    ]
    learning_rate: float = Field(gt=0, le=10)
    learning_rate_schedule: Literal["constant", "cosine", "polynomial", "one_cycle"]
    warmup_fraction: BelowOne
    beta_1: BelowOne
    beta_2: BelowOne
    ema_momentum: BelowOne
    batch_size: PositiveInt
    epochs: PositiveInt
    low_resolution_fraction: BelowOne
    early_stopping_patience: Count
    monitor_fraction: BelowOne
    seed: Seed
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"]
    initial_weights: Annotated[str, AfterValidator(_place)]
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
    """Scores and pictures of held-out pairs."""

    threshold: float = Field(gt=0, lt=1)
    flip_tta: bool
    keep_components: Count
    bootstrap_resamples: int = Field(ge=100)
    bootstrap_seed: Seed
    overlays_worst: Count
    overlays_best: Count
    overlays_median: Count
    batch_size: PositiveInt


def flatten(values: Any, prefix: str = "") -> Any:
    """Nested values by dotted name; a value that is not a dict stays as it is.

    If a name occurs twice, the later one counts.

    Example:
        >>> flatten({"dice": {"mean": 0.9}, "num_images": 3})
        {'dice.mean': 0.9, 'num_images': 3}
    """
    if not isinstance(values, dict):
        return {prefix: values} if prefix else values
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


# `dvc exp run -S gate.min.dice.mean=0.9` sets the nested form.
Bounds = Annotated[dict[str, Finite], BeforeValidator(flatten)]


class GateParams(Section):
    """Bounds on metrics; a metric that is missing or undefined fails."""

    min: Bounds
    max: Bounds


class ExportParams(Section):
    """Exported files, and how far they may differ from the Keras model."""

    parity_images: PositiveInt
    max_probability_difference: Fraction
    max_dice_difference: Fraction
    variants: list[Literal["fp16", "int8"]]
    calibration_images: PositiveInt
    fp16_max_dice_loss: Fraction
    int8_max_dice_loss: Fraction


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
    """Reads and checks `params.yaml`, a YAML 1.2 file, as DVC reads it.

    Raises:
        PipelineError: If a key is unknown, missing, of the wrong type or out of
            bounds; one sentence names the first such key.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing here; run from the root of the repository"
        ) from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} must be YAML in UTF-8: {error}") from None
    return parse_text(text)


def parse_text(text: str) -> Params:
    """Checks the text of a `params.yaml`; errors as in `load_params`."""
    return parse_params(_read(YAML(typ="safe", pure=True), text))


def parse_params(values: Any) -> Params:
    """Checks values that were already read; errors as in `load_params`."""
    if not isinstance(values, dict):
        raise PipelineError(
            f"params.yaml must hold one section per stage, found {_short(values)}"
        )
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise PipelineError(f"params.yaml: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation, as `section.key must …, found …`.

    A renamed or unknown key comes before the others: the right one is missing because
    of it.
    """
    problems = {
        ".".join(map(str, problem["loc"])): problem
        for problem in reversed(error.errors(include_url=False))
    }
    for old in problems.keys() & RENAMED.keys():
        return f"{old} is called {RENAMED[old]} now; rename it"
    unknown = [k for k, p in problems.items() if p["type"] == "extra_forbidden"]
    key = (unknown or list(problems))[-1]
    problem = problems[key]
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
            expected = re.sub(r"^.*?should | or instance of \w+$", "", problem["msg"])
            return f"{key} must {expected}, found {found}"


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def with_values(document: Any, values: Mapping[str, Any]) -> Any:
    """Sets params by their dotted names in a copy of what `params.yaml` holds.

    Missing sections are made, and comments of a round-trip loader kept. The copy is not
    validated.

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


def _read(yaml: YAML, text: str) -> Any:
    try:
        return yaml.load(text)
    except Exception as error:  # its reader raises what its parts raise
        reason = " ".join(str(error).split())
        raise PipelineError(f"params.yaml must be YAML: {reason}") from None
