"""What a usable pair looks like: Great Expectations' expectations, in plain words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from stages.core.expectations import library
from stages.core.params import ValidateParams

Row = Mapping[str, Any]
SHAPES = ["image_shape", "mask_shape"]


@dataclass(frozen=True)
class Check:
    """One expectation, its weight, and how to tell a person about it."""

    name: str
    severity: Literal["critical", "warning"]  # critical rejects, warning notes
    expected: str  # "mask values are 0 and 255 only"
    found: Callable[[Row], str]  # "mask values are 0,12,255"
    expectation: Any

    def reason(self, row: Row) -> str:
        """One row's trouble: what was found, then what was expected."""
        return f"{self.found(row)} (expected: {self.expected})"


def pair_checks(params: ValidateParams, *, has_sites: bool = False) -> list[Check]:
    """The checks of each pair, on the columns of `facts.SCHEMA`.

    A fact that could not be measured is null and is nobody's mistake but that of the
    check that says why (orphan, taken, readable): each trouble is named once.
    """
    gxe = library().expectations

    shapes = [(image, mask) for image, mask in params.image_mask_shapes]
    shape_words = " or ".join(f"{image} with {mask}" for image, mask in shapes)
    share = f"{params.foreground_min:g} to {params.foreground_max:g}"
    if params.foreground_min == 0:
        share = f"more than 0, at most {params.foreground_max:g},"
    white = params.mask_foreground
    checks = [
        Check(
            "id_unique",
            "critical",
            "an id names one pair",
            lambda row: f"id {row['pair_id']!r} is used more than once",
            gxe.ExpectColumnValuesToBeUnique(column="pair_id"),
        ),
        _class_check(params),
        Check(
            "not_orphan",
            "critical",
            "an image has a mask of its name, and a mask an image",
            lambda row: f"has no {row['missing']}",
            gxe.ExpectColumnValuesToBeInSet(column="missing", value_set=[""]),
        ),
        Check(
            "taken",
            "critical",
            "ingest could take the bytes from the source",
            lambda row: row["problem"],
            gxe.ExpectColumnValuesToBeInSet(column="problem", value_set=[""]),
        ),
    ]
    for side in ("image", "mask"):
        checks.append(
            Check(
                f"{side}_readable",
                "critical",
                f"the {side} is a whole PNG, JPEG, TIFF or BMP file",
                lambda row, side=side: (  # type: ignore[misc]
                    f"{side} cannot be read: {row[f'{side}_problem']}"
                ),
                gxe.ExpectColumnValuesToBeInSet(
                    column=f"{side}_problem", value_set=[""]
                ),
            )
        )
    checks += [
        Check(
            "shapes",
            "critical",
            f"image and mask are {shape_words}"
            + (" (at a site of other sizes: alike)" if has_sites else ""),
            lambda row: f"image is {row['image_shape']} and mask {row['mask_shape']}",
            gxe.ExpectColumnPairValuesToBeInSet(
                column_A="image_shape_judged",
                column_B="mask_shape_judged",
                value_pairs_set=shapes,
                ignore_row_if="either_value_is_missing",
            ),
        ),
        Check(
            "mask_values",
            "critical",
            f"mask values are 0 and {white} only",
            lambda row: f"mask values are {row['mask_values']}{_classes_hint(row)}",
            gxe.ExpectColumnValuesToBeInSet(
                column="mask_values", value_set=["0", f"0,{white}", f"{white}"]
            ),
        ),
        Check(
            "foreground",
            "critical",
            f"foreground is {share} of the mask",
            lambda row: f"foreground is {row['foreground_fraction']:.4g} of the mask",
            gxe.ExpectColumnValuesToBeBetween(
                column="foreground_judged",
                min_value=params.foreground_min,
                max_value=params.foreground_max,
                # What is always there leaves no mask empty, however small it may be.
                strict_min=params.foreground_min == 0,
            ),
        ),
        Check(
            "contrast",
            "critical",
            f"grey values deviate by {params.contrast_min:g} or more",
            lambda row: f"grey values deviate by {row['image_contrast']:.3g}",
            gxe.ExpectColumnValuesToBeBetween(
                column="image_contrast", min_value=params.contrast_min
            ),
        ),
        Check(
            "components",
            "warning",
            f"the mask has at most {params.num_components_max} separate regions",
            lambda row: f"mask has {row['num_components']:.0f} separate regions",
            gxe.ExpectColumnValuesToBeBetween(
                column="num_components", max_value=params.num_components_max
            ),
        ),
    ]
    for side in ("image", "mask"):
        checks += _encoding_checks(side)
    checks.append(
        Check(
            "image_once",
            "warning",
            "no two pairs show the same pixels (split keeps copies on one side)",
            lambda _: "image is an exact copy of another pair's",
            gxe.ExpectColumnValuesToBeUnique(column="image_sha256"),
        )
    )
    for check in checks:
        check.expectation.severity = check.severity
    return checks


def with_judged(table: pd.DataFrame, params: ValidateParams) -> pd.DataFrame:
    """Facts with `foreground_judged` and so on: null where they need no judging.

    A lesion may be small or absent: its masks have no least foreground. Two shapes
    are judged once per site: Great Expectations goes through pairs of columns row by
    row.
    """
    share = table["foreground_fraction"]
    is_fine = table["may_be_empty"].astype(bool) & (share <= params.foreground_max)
    is_known = table.duplicated([*SHAPES, "site"]) | _fits_its_site(table, params)
    once = {f"{name}_judged": table[name].mask(is_known) for name in SHAPES}
    return table.assign(foreground_judged=share.mask(is_fine), **once)


def _fits_its_site(table: pd.DataFrame, params: ValidateParams) -> "pd.Series[bool]":
    """Which masks have their image's size, at a site whose sizes mostly are not listed.

    Each site has sizes of its own: one whose films differ in size needs no list.
    """
    listed = pd.MultiIndex.from_frame(table[SHAPES]).isin(
        [tuple(shapes) for shapes in params.image_mask_shapes]
    )
    mostly = pd.Series(listed, table.index).groupby(table["site"]).transform("mean")
    is_equal = table["image_shape"] == table["mask_shape"]
    return (table["site"] != "") & (mostly <= 0.5) & is_equal


def like(table: pd.DataFrame, rows: Sequence[int]) -> tuple[int, ...]:
    """Places of all pairs of a site with the two shapes of one of these, ascending."""
    shapes = table["image_shape"] + " " + table["mask_shape"] + " " + table["site"]
    return tuple(np.flatnonzero(shapes.isin(set(shapes.iloc[list(rows)]))).tolist())


def _classes_hint(row: Row) -> str:
    """What more than two values in a mask may mean."""
    if row["mask_values"].count(",") < 2:
        return ""
    return "; masks of several classes are out of scope: bring one class, as two values"


def _class_check(params: ValidateParams) -> Check:
    """Class names become keys of metrics and names of files."""
    gxe = library().expectations

    if params.classes:
        return Check(
            "class_known",
            "critical",
            f"class is one of {', '.join(params.classes)}",
            lambda row: f"class is {row['class_name']!r}",
            gxe.ExpectColumnValuesToBeInSet(
                column="class_name", value_set=list(params.classes)
            ),
        )
    return Check(
        "class_known",
        "critical",
        "the class has a name",
        lambda row: f"class is {row['class_name']!r}",
        gxe.ExpectColumnValuesToMatchRegex(column="class_name", regex=r"\S"),
    )


def _encoding_checks(side: str) -> list[Check]:
    """What decodes, but not as one would expect: worth a look, no reason to reject."""
    gxe = library().expectations

    return [
        Check(
            f"{side}_named",
            "warning",
            f"the {side}'s content is what its name says",
            lambda row: (
                f"{side} is {row[f'{side}_format']} under the name of "
                f"{row[f'{side}_named'] or 'nothing'}"
            ),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A=f"{side}_format",
                column_B=f"{side}_named",
                ignore_row_if="either_value_is_missing",
            ),
        ),
        Check(
            f"{side}_bit_depth",
            "warning",
            f"the {side} has 8 bits a sample (others are scaled to 8)",
            lambda row: f"{side} has {row[f'{side}_bit_depth']:.0f} bits a sample",
            gxe.ExpectColumnValuesToBeInSet(column=f"{side}_bit_depth", value_set=[8]),
        ),
        Check(
            f"{side}_alpha",
            "warning",
            f"the {side} has no transparency (it is ignored)",
            lambda _: f"{side} has an alpha channel",
            gxe.ExpectColumnValuesToBeInSet(
                column=f"{side}_has_alpha", value_set=[False]
            ),
        ),
        Check(
            f"{side}_palette",
            "warning",
            f"the {side} has no colour palette (it is looked up)",
            lambda _: f"{side} has a colour palette",
            gxe.ExpectColumnValuesToBeInSet(
                column=f"{side}_has_palette", value_set=[False]
            ),
        ),
    ]


def total_checks(params: ValidateParams) -> list[Check]:
    """The checks of the data set as a whole, on a table of one row.

    A critical one bears the name of the parameter that sets its bound, if there is one.
    """
    gxe = library().expectations

    checks = [
        Check(
            "max_rejected_fraction",
            "critical",
            f"at most {100 * params.max_rejected_fraction:.4g} % are rejected",
            lambda row: (
                f"{row['worst']} are rejected ({100 * row['worst_fraction']:.4g} %)"
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="worst_fraction", max_value=params.max_rejected_fraction
            ),
        ),
        Check(
            "min_pairs",
            "critical",
            f"at least {params.min_pairs} pairs are accepted",
            lambda row: f"{row['num_accepted']} pairs are accepted",
            gxe.ExpectColumnValuesToBeBetween(
                column="num_accepted", min_value=params.min_pairs
            ),
        ),
        Check(
            "masks_upright",
            "critical",
            "masks have the same side in white at every site",
            lambda row: f"the masks of {row['inverted_sites']} look inverted",
            gxe.ExpectColumnValuesToBeInSet(column="inverted_sites", value_set=[""]),
        ),
        Check(
            "classes_filled",
            "warning",
            "every class has accepted pairs",
            lambda row: f"no pair is accepted of {row['empty_classes']}",
            gxe.ExpectColumnValuesToBeInSet(column="empty_classes", value_set=[""]),
        ),
    ]
    for check in checks:
        check.expectation.severity = check.severity
    return checks
