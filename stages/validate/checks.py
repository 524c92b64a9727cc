"""The expectations of usable pairs and of the data set, each with a sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from stages.core.expectations import library
from stages.core.params import ValidateParams

Row = Mapping[str, Any]
Severity = Literal["critical", "warning"]  # critical rejects, warning notes


@dataclass(frozen=True)
class Check:
    """One expectation, its severity, and how to tell a person about it."""

    name: str
    severity: Severity
    expected: str  # "mask values are 0 and 255 only"
    found: Callable[[Row], str]  # "mask values are 0,12,255"
    expectation: Any

    def reason(self, row: Row) -> str:
        """The found and the expected value of a row."""
        return f"{self.found(row)} (expected: {self.expected})"


def _one_of(column: str, *values: object) -> Any:
    return library().expectations.ExpectColumnValuesToBeInSet(
        column=column, value_set=list(values)
    )


def _between(column: str, **bounds: Any) -> Any:
    return library().expectations.ExpectColumnValuesToBeBetween(column=column, **bounds)


def _unique(column: str) -> Any:
    return library().expectations.ExpectColumnValuesToBeUnique(column=column)


def pair_checks(params: ValidateParams, *, has_sites: bool = False) -> list[Check]:
    """The checks of each pair, on the columns that `with_judged` returns.

    A fact that could not be measured is null and breaks only the check that says why
    (not_orphan, taken, readable): each problem is named once.
    """
    shapes = _listed_shapes(params)
    shape_words = " or ".join(shapes)
    if has_sites:
        shape_words += " (at a site of other sizes: alike)"
    share = f"{params.foreground_min:g} to {params.foreground_max:g}"
    if params.foreground_min == 0:
        share = f"more than 0, at most {params.foreground_max:g},"
    white = params.mask_foreground
    return [
        Check(
            "id_unique",
            "critical",
            "an id names one pair",
            lambda row: f"id {row['pair_id']!r} is used more than once",
            _unique("pair_id"),
        ),
        _class_check(params),
        Check(
            "not_orphan",
            "critical",
            "an image has a mask of its name, and a mask an image",
            lambda row: f"has no {row['missing']}",
            _one_of("missing", ""),
        ),
        Check(
            "taken",
            "critical",
            "ingest could take the bytes from the source",
            lambda row: row["problem"],
            _one_of("problem", ""),
        ),
        *(_readable_check(side) for side in ("image", "mask")),
        Check(
            "shapes",
            "critical",
            f"image and mask are {shape_words}",
            lambda row: f"image is {row['image_shape']} and mask {row['mask_shape']}",
            _one_of("shapes_judged", *shapes),
        ),
        Check(
            "mask_values",
            "critical",
            f"mask values are 0 and {white} only",
            lambda row: f"mask values are {row['mask_values']}{_classes_hint(row)}",
            _one_of("mask_values", "0", f"0,{white}", f"{white}"),
        ),
        Check(
            "foreground",
            "critical",
            f"foreground is {share} of the mask",
            lambda row: f"foreground is {row['foreground_fraction']:.4g} of the mask",
            _between(
                "foreground_judged",
                min_value=params.foreground_min,
                max_value=params.foreground_max,
                # An organ is always there, however small it may be.
                strict_min=params.foreground_min == 0,
            ),
        ),
        Check(
            "contrast",
            "critical",
            f"grey values deviate by {params.contrast_min:g} or more",
            lambda row: f"grey values deviate by {row['image_contrast']:.3g}",
            _between("image_contrast", min_value=params.contrast_min),
        ),
        Check(
            "components",
            "warning",
            f"the mask has at most {params.num_components_max} separate regions",
            lambda row: f"mask has {row['num_components']:.0f} separate regions",
            _between("num_components", max_value=params.num_components_max),
        ),
        *(check for side in ("image", "mask") for check in _encoding_checks(side)),
        Check(
            "image_once",
            "warning",
            "no two pairs show the same pixels (split keeps copies on one side)",
            lambda _: "image is an exact copy of another pair's",
            _unique("image_sha256"),
        ),
    ]


def with_judged(table: pd.DataFrame, params: ValidateParams) -> pd.DataFrame:
    """Facts with `foreground_judged` and `shapes_judged`, null where nothing is judged.

    A lesion may be small or absent: its masks have no least foreground. At a site whose
    sizes are mostly not listed, a mask only needs its image's size.
    """
    share = table["foreground_fraction"]
    is_fine = table["may_be_empty"].astype(bool) & (share <= params.foreground_max)
    shapes = table["image_shape"] + " with " + table["mask_shape"]
    is_listed = shapes.isin(_listed_shapes(params))
    mostly = is_listed.groupby(table["site"]).transform("mean")
    is_equal = table["image_shape"] == table["mask_shape"]
    fits_its_site = (table["site"] != "") & (mostly <= 0.5) & is_equal
    return table.assign(
        foreground_judged=share.mask(is_fine), shapes_judged=shapes.mask(fits_its_site)
    )


def _listed_shapes(params: ValidateParams) -> list[str]:
    return [f"{image} with {mask}" for image, mask in params.image_mask_shapes]


def _classes_hint(row: Row) -> str:
    """The likely cause of more than two values in a mask."""
    if row["mask_values"].count(",") < 2:
        return ""
    return "; masks of several classes are out of scope: bring one class, as two values"


def _class_check(params: ValidateParams) -> Check:
    """Class names become keys of metrics and names of files."""
    known = params.classes
    return Check(
        "class_known",
        "critical",
        f"class is one of {', '.join(known)}" if known else "the class has a name",
        lambda row: f"class is {row['class_name']!r}",
        _one_of("class_name", *known)
        if known
        else library().expectations.ExpectColumnValuesToMatchRegex(
            column="class_name", regex=r"\S"
        ),
    )


def _readable_check(side: str) -> Check:
    return Check(
        f"{side}_readable",
        "critical",
        f"the {side} is a whole PNG, JPEG, TIFF or BMP file",
        lambda row: f"{side} cannot be read: {row[f'{side}_problem']}",
        _one_of(f"{side}_problem", ""),
    )


def _encoding_checks(side: str) -> list[Check]:
    """Images that decode, but perhaps not as meant: noted, not rejected."""
    return [
        Check(
            f"{side}_named",
            "warning",
            f"the {side}'s content is what its name says",
            lambda row: (
                f"{side} is {row[f'{side}_format']} under the name of "
                f"{row[f'{side}_named'] or 'nothing'}"
            ),
            library().expectations.ExpectColumnPairValuesToBeEqual(
                column_A=f"{side}_format",
                column_B=f"{side}_named",
                ignore_row_if="either_value_is_missing",
            ),
        ),
        Check(
            f"{side}_bit_depth",
            "warning",
            f"the {side} has 8 bits per sample (others are scaled to 8)",
            lambda row: f"{side} has {row[f'{side}_bit_depth']:.0f} bits per sample",
            _one_of(f"{side}_bit_depth", 8),
        ),
        Check(
            f"{side}_alpha",
            "warning",
            f"the {side} has no transparency (it is ignored)",
            lambda _: f"{side} has an alpha channel",
            _one_of(f"{side}_has_alpha", False),
        ),
        Check(
            f"{side}_palette",
            "warning",
            f"the {side} has no colour palette (it is looked up)",
            lambda _: f"{side} has a colour palette",
            _one_of(f"{side}_has_palette", False),
        ),
    ]


def total_checks(params: ValidateParams) -> list[Check]:
    """The checks of the data set as a whole, on a table of one row.

    A critical one bears the name of the param that sets its bound, if there is one.
    """
    return [
        Check(
            "max_rejected_fraction",
            "critical",
            f"at most {100 * params.max_rejected_fraction:.4g} % are rejected",
            lambda row: (
                f"{row['worst']} are rejected ({100 * row['worst_fraction']:.4g} %)"
            ),
            _between("worst_fraction", max_value=params.max_rejected_fraction),
        ),
        Check(
            "min_pairs",
            "critical",
            f"at least {params.min_pairs} pairs are accepted",
            lambda row: f"{row['num_accepted']} pairs are accepted",
            _between("num_accepted", min_value=params.min_pairs),
        ),
        Check(
            "masks_upright",
            "critical",
            "masks have the same side in white at every site",
            lambda row: f"the masks of {row['inverted_sites']} look inverted",
            _one_of("inverted_sites", ""),
        ),
        Check(
            "classes_filled",
            "warning",
            "every class has accepted pairs",
            lambda row: f"no pair is accepted of {row['empty_classes']}",
            _one_of("empty_classes", ""),
        ),
    ]
