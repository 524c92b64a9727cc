"""Both sides' scores, image against image."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.core import paths
from stages.datasets.pairs import natural_key
from stages.review.run_results import RunResults, same_out
from stages.scoring.metrics import METRICS, confidence_interval

RESAMPLES = 10_000
SEED = 20
TOLERANCE = 0.001  # of Dice: a smaller difference of an image counts as none

# What became of the Dice of an image.
LOWER, HIGHER, EQUAL, UNDEFINED = "lower", "higher", "equal", "undefined"
ONLY_BASE, ONLY_HEAD, OTHER_IMAGE = "only in base", "only in head", "other picture"
BECAME = (LOWER, HIGHER, EQUAL, UNDEFINED, OTHER_IMAGE, ONLY_BASE, ONLY_HEAD)


@dataclass(frozen=True)
class Difference:
    """Mean over images of head minus base, with its 95 % interval."""

    base: float
    head: float
    mean: float
    low: float  # NaN with fewer than 2 groups
    high: float
    num_images: int
    num_groups: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return bool(self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """All images of both sides."""

    images: pd.DataFrame  # one row per image; `_images` names the columns
    # By metric, over the images that both scored; sites held out whole are left out.
    differences: dict[str, Difference]
    parts: dict[str, dict[str, Difference]]  # of Dice, by class and by site
    counts: dict[str, int]  # of images, by what became of them
    same_images: bool  # whether both sides scored the same images

    @property
    def num_common(self) -> int:
        """Number of images that both sides scored."""
        return sum(self.counts[name] for name in (HIGHER, LOWER, EQUAL, UNDEFINED))

    @property
    def is_same(self) -> bool:
        """Whether all images that both sides scored have the same scores."""
        columns = [f"{name}_difference" for name in METRICS]
        columns = [name for name in columns if name in self.images]
        return not (self.images[columns].fillna(0) != 0).to_numpy().any()


def compare(base: RunResults, head: RunResults) -> Comparison:
    """Pairs the images of both sides.

    Differences are paired and groups are the sample, so an interval holds the noise of
    the choice of patients, not of their differing difficulty.
    """
    others, groups = _other_pictures(base, head), _groups(base, head)
    images = _images(base.per_image, head.per_image, others, groups)
    common = images[images["in_both"]]
    headline = common[common["is_headline"]]
    differences = {
        name: difference
        for name in METRICS
        if f"{name}_difference" in common
        and (difference := _difference(headline, name)) is not None
    }
    of_sites = common[common["site"] != ""]
    parts = {"class": ("class_name", headline), "site": ("site", of_sites)}
    counts = images["became"].value_counts()
    return Comparison(
        images=images,
        differences=differences,
        parts={part: _by(column, rows) for part, (column, rows) in parts.items()},
        counts={name: int(counts.get(name, 0)) for name in BECAME},
        same_images=bool(images["in_both"].all()),
    )


def _by(column: str, rows: pd.DataFrame) -> dict[str, Difference]:
    """The difference of Dice by the values of a column, in natural order."""
    found = {
        str(name): _difference(some, "dice") for name, some in rows.groupby(column)
    }
    ordered = sorted(found.items(), key=lambda item: natural_key(item[0]))
    return {name: difference for name, difference in ordered if difference is not None}


def _difference(rows: pd.DataFrame, name: str) -> Difference | None:
    """None where no image has the metric defined on both sides."""
    values = rows[f"{name}_difference"].to_numpy(float)
    defined = np.isfinite(values)
    if not defined.any():
        return None
    groups = rows["group"].to_numpy(object)
    low, high = confidence_interval(values, groups, resamples=RESAMPLES, seed=SEED)
    largest = METRICS[name].largest  # few groups give ends that no difference reaches
    return Difference(
        base=float(rows[f"{name}_base"][defined].mean()),
        head=float(rows[f"{name}_head"][defined].mean()),
        mean=float(values[defined].mean()),
        low=max(low, -largest),
        high=min(high, largest),
        num_images=int(defined.sum()),
        num_groups=len(set(groups[defined])),
    )


def _images(
    base: pd.DataFrame,
    head: pd.DataFrame,
    others: set[str],
    groups: dict[str, str],
) -> pd.DataFrame:
    """One row per image of either side, in natural order.

    Returns:
        pair_id, class_name, site, is_headline, group, became, in_both, and for each
        metric of both sides `_base`, `_head` and `_difference` (head minus base).
    """
    merged = base.merge(
        head, on="pair_id", how="outer", suffixes=("_base", "_head"), indicator="place"
    )
    for name in ("class_name", "site", "is_headline"):
        merged[name] = merged[f"{name}_head"].fillna(merged[f"{name}_base"])
    merged["is_headline"] = merged["is_headline"].astype(bool)
    names = merged["pair_id"]
    merged["group"] = [groups.get(name, name) for name in names]
    merged["in_both"] = (merged["place"] == "both") & ~names.isin(others)
    for name in METRICS:
        if name not in base or name not in head:
            continue  # a metric that one side lacks
        difference = merged[f"{name}_head"] - merged[f"{name}_base"]
        merged[f"{name}_difference"] = difference.where(merged["in_both"])
    difference = merged["dice_difference"]
    # per_image.csv has 6 digits: 0.9 to 0.901 must not count by a last bit.
    is_equal = difference.abs() <= TOLERANCE + 5e-7
    merged["became"] = np.select(
        [
            merged["place"] == "left_only",
            merged["place"] == "right_only",
            ~merged["in_both"],
            difference.isna(),
            is_equal,
            difference > 0,
        ],
        [ONLY_BASE, ONLY_HEAD, OTHER_IMAGE, UNDEFINED, EQUAL, HIGHER],
        default=LOWER,
    )
    order = sorted(merged.index, key=lambda i: natural_key(str(names[i])))
    return merged.loc[order].reset_index(drop=True)


def _other_pictures(base: RunResults, head: RunResults) -> set[str]:
    """Ids under which both sides are known to hold another image or mask."""
    if same_out(base, head, paths.INGESTED):
        return set()
    if base.facts is None or head.facts is None:
        return set()
    columns = ["pair_id", "image_sha256", "mask_sha256"]
    merged = base.facts[columns].merge(head.facts[columns], on="pair_id")
    differs = (merged["image_sha256_x"] != merged["image_sha256_y"]) | (
        merged["mask_sha256_x"] != merged["mask_sha256_y"]
    )
    return set(merged.loc[differs, "pair_id"])


def _groups(base: RunResults, head: RunResults) -> dict[str, str]:
    """Group of every pair, the head's where both sides know one."""
    groups: dict[str, str] = {}
    for table in (base.splits, head.splits):
        if table is not None:
            groups |= dict(zip(table["pair_id"], table["group"], strict=True))
    return groups
