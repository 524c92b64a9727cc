"""Divides the accepted pairs; duplicates and patients stay on one side.

Reads:  data/quality/pairs.parquet
Writes: data/splits/pairs.csv, data/splits/summary.json
Why:    an image, or a patient, on both sides makes a model look better than it is.

The Hamming distance of perceptual hashes (256 bits) finds near-duplicates. Of 345 real
radiographs, exact copies are 0 bits apart and the nearest two patients 50. JPEG at
quality 30 moves 99 % of hashes by at most 10 bits, a shift by 2 pixels by 26, a
rotation by 2 degrees by 46. Hence `near_duplicate_max_distance: 24`, half the distance
of the nearest two unrelated images.

`use_official_split` takes the sides of the data set's own split. Published splits leak:
where duplicates, or a patient, are on several sides, only the pairs on the most
protected side stay (test before validation before train), so that the held-out side
remains the one that others score.

`hold_out_sites` are held out whole, beside the held-out pairs of the other sites. A
training pair that shares an image or a patient with them is left out.
"""

import logging
from collections.abc import Hashable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.core import errors, files, input_check, paths
from stages.core.errors import PipelineError
from stages.core.params import SplitParams, load_params
from stages.datasets.pairs import SPLITS, natural_key, seeded_rank

logger = logging.getLogger(__name__)

Labels = NDArray[np.int64]  # (N,) a number for each group
_COLUMNS = (
    *("pair_id", "class_name", "site", "group"),
    *("accepted", "image_sha256", "image_phash"),
)
# Sides of an official split, and held-out sites, from the least protected to the most.
_PROTECTION = ("train", "validation", "test", "site")
_LISTED = 50  # pairs of duplicates that the summary names
SAME_SITE = 0.9  # share of groups in common that makes two sites one
_PAIRS = 1 << 20  # hashes compared at a time


def split(
    params: SplitParams,
    *,
    quality: Path = paths.QUALITY_PAIRS,
    out: Path = paths.SPLIT_PAIRS,
    summary: Path = paths.SPLIT_SUMMARY,
) -> Path:
    """Assigns the accepted pairs to two sides, group by group.

    Pairs that share a patient, or are exact or near-duplicates, form a group, directly
    or through others; it is named after its first pair in natural order. A seeded hash
    gives each patient (or image, without a patient) a place between 0 and 1. A group is
    held out if the place of any of its members is below the fraction, or in the fold.
    Held-out pairs therefore stay held out however the data grow, even where new pairs
    join two groups into one, which two folds then hold out. Classes are not balanced.

    Returns:
        `out`, a table `pair_id,class_name,group,split`, and `site` where there are
        sites, in natural order.

    Raises:
        PipelineError: If there is no table, a site is unknown or there twice, a pair
            lacks the side that should be kept, or one of the sides would be empty.
    """
    table = _read(quality, use_official_split=params.use_official_split)
    keys = table["group"].where(table["group"] != "", table["image_sha256"])
    labels, copies = _group(
        table, near_duplicate_max_distance=params.near_duplicate_max_distance
    )
    # A group's name is its first pair in natural order, which the rows are in.
    table["group"] = table["pair_id"].groupby(labels).transform("first")
    _check_sites(table, params.hold_out_sites)
    is_apart = table["site"].isin(params.hold_out_sites)
    own, keys = table[~is_apart], keys[~is_apart]
    if params.use_official_split:
        side = _official_sides(own)
    else:
        side = _sides(own["group"], keys, params)
    table["side"] = side.reindex(table.index, fill_value=_PROTECTION[-1])
    table, left_out = _assigned(table, params)
    own = table[table["side"] != _PROTECTION[-1]]
    _check_sides(own, keys, left_out, params)
    _warn(own, keys[own.index], params)
    columns = ["pair_id", "class_name", "group", "split"]
    columns += ["site"] if table["site"].any() else []
    files.write_csv(out, table[columns])
    values = _summary(table, copies)
    if params.use_official_split or params.hold_out_sites:
        listed = left_out[["pair_id", "side", "group"]].head(_LISTED)
        values["num_left_out"] = len(left_out)
        values["left_out"] = listed.to_dict("records")
    files.write_json(summary, values)
    logger.info(
        "%d pairs in %d groups: %d to train, %d to validation",
        values["num_pairs"],
        values["num_groups"],
        values["num_train"],
        values["num_validation"],
    )
    return out


def _read(path: Path, *, use_official_split: bool) -> pd.DataFrame:
    """The accepted pairs in natural order, with the columns of `_COLUMNS`."""
    columns = [*_COLUMNS, "given_split"] if use_official_split else list(_COLUMNS)
    try:
        table = pq.read_table(path, columns=columns).to_pandas()
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing; run `dvc repro validate` (or `dvc pull`) to make it"
        ) from None
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"{path} should be the table that validate wrote but is not ({reason}); "
            "remove it and run `dvc repro validate`"
        ) from None
    table = pd.DataFrame(table[table["accepted"]])
    if table.empty:
        raise PipelineError(f"{path} holds no accepted pair, so there is none to split")
    return table.sort_values(
        "pair_id", key=lambda ids: ids.map(natural_key), ignore_index=True
    )


def _group(
    table: pd.DataFrame, *, near_duplicate_max_distance: int
) -> tuple[Labels, dict[str, Any]]:
    """Numbers the groups: pairs that share a patient or are duplicates.

    Returns:
        The label of each row, (N,), and the duplicates found, for the summary.
    """
    labels = np.arange(len(table))
    patients = table["group"].to_numpy(object)
    labels = _join(labels, *_chain(np.flatnonzero(patients != ""), patients))
    pixels = table["image_sha256"].to_numpy(object)
    exact = _chain(np.arange(len(table)), pixels)
    labels = _join(labels, *exact)
    # Exact copies are joined already: only the first of each is compared.
    firsts = np.flatnonzero(~pd.Series(pixels).duplicated().to_numpy())
    digits = "".join(table["image_phash"].iloc[firsts])
    hashes = np.frombuffer(bytes.fromhex(digits), "<u8").reshape(len(firsts), -1)
    num_near = 0
    listed: list[tuple[int, int, int]] = []
    for first, second, distances in _near(hashes, near_duplicate_max_distance):
        first, second = firsts[first], firsts[second]
        labels = _join(labels, first, second)
        num_near += len(first)
        listed = sorted([*listed, *zip(first, second, distances, strict=True)])
        listed = listed[:_LISTED]
    ids = table["pair_id"]
    return labels, {
        "num_exact_copies": len(exact[0]),
        "num_near_copy_pairs": num_near,
        "exact_copies": [
            [ids[a], ids[b]] for a, b in sorted(zip(*exact, strict=True))[:_LISTED]
        ],
        "near_copies": [
            {"pairs": [ids[a], ids[b]], "bits": int(bits)} for a, b, bits in listed
        ],
    }


def _chain(
    rows: NDArray[np.intp], keys: NDArray[np.object_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Links each row to the first row with the same key: (M,) first, (M,) later."""
    firsts = pd.Series(rows).groupby(keys[rows]).transform("first").to_numpy()
    apart = firsts != rows
    return firsts[apart], rows[apart]


def _join(labels: Labels, first: NDArray[np.intp], second: NDArray[np.intp]) -> Labels:
    """Gives one label to the rows that these and earlier links connect."""
    a, b = labels[first], labels[second]
    apart = a != b
    if not apart.any():
        return labels
    links = coo_array(
        (np.ones(int(apart.sum()), bool), (a[apart], b[apart])),
        shape=(len(labels), len(labels)),
    )
    joined: Labels = connected_components(links, directed=False)[1].astype(np.int64)
    return joined[labels]


def _near(
    hashes: NDArray[np.uint64], bits: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Yields all pairs of rows at most `bits` apart, each once; memory is bounded.

    Two such hashes differ in at most one bit of one of `bits // 2 + 1` bands, so that
    only rows with such keys are compared: multi-index hashing.

    Args:
        hashes: (N, 4) words of 64 bits.
        bits: Largest Hamming distance.

    Yields:
        (M,) first, (M,) second and (M,) distance; first < second.

    Source: Norouzi et al., 2012, https://arxiv.org/abs/1307.2982
    """
    # Neighbouring bits are alike: bands of scattered bits separate images better.
    places = np.random.default_rng(0).permutation(64 * hashes.shape[1])
    bands = np.array_split(places, max(bits // 2 + 1, 8))
    masks = np.zeros((len(bands), hashes.shape[1]), np.uint64)
    for number, band in enumerate(bands):
        keys = np.zeros(len(hashes), np.uint64)
        for bit, place in enumerate(band):
            word, shift = place // 64, np.uint64(place % 64)
            keys |= (hashes[:, word] >> shift & np.uint64(1)) << np.uint64(bit)
            masks[number, word] |= np.uint64(1) << shift
        for first, second in _similar(keys, len(band)):
            differing = hashes[first] ^ hashes[second]
            distance = np.bitwise_count(differing).sum(1)
            near = distance <= bits
            in_earlier = np.bitwise_count(differing[near, None] & masks[:number]).sum(2)
            near[near] = (in_earlier > 1).all(1)  # those were found before
            if near.any():
                ends = np.sort([first[near], second[near]], axis=0)
                yield ends[0], ends[1], distance[near]


def _similar(
    keys: NDArray[np.uint64], num_bits: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yields the pairs of rows whose keys differ in at most one of `num_bits` bits."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    rows = np.arange(len(keys))
    yield from _expand(order, rows, rows + 1, np.searchsorted(keys, keys, "right"))
    for bit in range(num_bits):
        flip = np.uint64(1 << bit)
        rows = np.flatnonzero(keys & flip)
        wanted = keys[rows] ^ flip
        starts, stops = (np.searchsorted(keys, wanted, s) for s in ("left", "right"))
        yield from _expand(order, rows, starts, stops)


def _expand(
    order: NDArray[np.intp],
    rows: NDArray[np.intp],
    starts: NDArray[np.intp],
    stops: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yields each row with each row from its start to before its stop, in `order`."""
    counts = stops - starts
    ends = np.cumsum(counts)
    limits = np.arange(0, ends[-1:].sum() + _PAIRS, _PAIRS)
    cuts = np.searchsorted(ends, limits, "right")
    for low, high in pairwise(cuts):
        some = counts[low:high]
        offsets = np.repeat(starts[low:high] - np.cumsum(some) + some, some)
        yield (
            order[np.repeat(rows[low:high], some)],
            order[offsets + np.arange(len(offsets))],
        )


def _sides(groups: pd.Series, keys: pd.Series, params: SplitParams) -> pd.Series:
    """The side of each row, from the places of its group's members."""
    digits = 13  # what a float holds exactly
    places = keys.map(
        lambda key: int(seeded_rank(key, params.seed)[:digits], 16) / 16**digits
    )
    if params.folds:
        is_own = (places * params.folds).astype(int) == params.fold
    else:
        is_own = places < params.validation_fraction
    held_out = is_own.groupby(groups).transform("any")
    train, validation = SPLITS
    return held_out.map({True: validation, False: train})


def _check_sites(table: pd.DataFrame, hold_out: list[str]) -> None:
    """Checks the sites to hold out, and that no site has two names.

    Raises:
        PipelineError: If one is unknown, none is left, or two share nearly all images.
    """
    known = sorted(set(table["site"]) - {""}, key=natural_key)
    for name in hold_out:
        if name not in known:
            there = ", ".join(map(repr, known)) or "no sites, which ingest.layout makes"
            raise PipelineError(
                f"split.hold_out_sites names {name!r}, but the accepted pairs have "
                f"{there}; correct it"
            )
    if known and set(known) == set(hold_out):
        raise PipelineError(
            "split.hold_out_sites names every site, so that none is left to train on; "
            "remove one from it"
        )
    groups = table.groupby("site")["group"].agg(set)
    for first, second in combinations(known, 2):
        shared = len(groups[first] & groups[second])
        largest = max(len(groups[first]), len(groups[second]))
        if shared >= SAME_SITE * largest:
            raise PipelineError(
                f"{first!r} and {second!r} are one site under two names: duplicates "
                f"join {shared} of their {largest} groups; remove one"
            )


def _official_sides(table: pd.DataFrame) -> pd.Series:
    """The side of each row in the data set's own split.

    Raises:
        PipelineError: If a pair has none.
    """
    given = table["given_split"]
    strange = ~given.isin(_PROTECTION[:-1])
    if strange.any():
        raise PipelineError(
            "split.use_official_split needs the data set's own split, but "
            f"{int(strange.sum())} of {len(table)} accepted pairs have none, such as "
            f"{table['pair_id'][strange].iloc[0]!r}; set it to false"
        )
    return given


def _assigned(
    table: pd.DataFrame, params: SplitParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that stay, with `split`; and those that would leak a held-out one."""
    train, validation = SPLITS
    splits = {"train": train, "validation": validation, "site": validation}
    if params.use_official_split and params.official_held_out == "test":
        splits |= {"validation": train, "test": validation}
    table = table.assign(split=table["side"].map(splits).fillna("set aside"))
    protection = table["side"].map(
        {side: rank for rank, side in enumerate(_PROTECTION)}
    )
    # A duplicate on two sides of the same use is no leak.
    leaks = (protection < protection.groupby(table["group"]).transform("max")) & (
        table["split"].groupby(table["group"]).transform("nunique") > 1
    )
    if leaks.any():
        logger.warning(
            "%d pairs are left out: their duplicates or patients are also on another "
            "side, which is held out",
            leaks.sum(),
        )
    return table[~leaks & table["split"].isin(SPLITS)], table[leaks]


def _check_sides(
    table: pd.DataFrame, keys: pd.Series, left_out: pd.DataFrame, params: SplitParams
) -> None:
    """Raises PipelineError if one side is empty."""
    remedy = "try another split.seed, or bring more pairs"
    if params.use_official_split:
        key = f"official_held_out {params.official_held_out}"
        remedy = "hold out another side, or set split.use_official_split to false"
    elif params.folds:
        key, remedy = f"fold {params.fold} of {params.folds}", "use fewer folds"
    else:
        key = f"validation_fraction {params.validation_fraction:g}"
    groups = table["group"].nunique()
    if groups == 1 < len(table):
        remedy = f"they {_reason(keys)}"
    leaks = f", {len(left_out)} are left out as duplicates" if len(left_out) else ""
    for side in SPLITS:
        if not (table["split"] == side).any():
            raise PipelineError(
                f"split.{key} leaves no pair for {side}: {len(table)} accepted pairs "
                f"form {groups} group{'s' if groups > 1 else ''} of duplicates and "
                f"patients that stay together{leaks}; {remedy}"
            )


def _reason(keys: pd.Series) -> str:
    """Why the pairs of one group belong together, and what to do about it."""
    if keys.nunique() == 1:
        return (
            "share one patient id (or one image); if that is a placeholder such as "
            "ANONYMOUS, give each patient an id of its own"
        )
    return (
        "are near-duplicates of each other; lower split.near_duplicate_max_distance if "
        "they are not"
    )


def _warn(table: pd.DataFrame, keys: pd.Series, params: SplitParams) -> None:
    """Warns of a group that dominates the split, and of a fraction that is far off."""
    if params.use_official_split:
        return
    wanted = 1 / params.folds if params.folds else params.validation_fraction
    got = float((table["split"] == SPLITS[1]).mean())
    sizes = table.groupby("group").size()
    largest = table["group"] == sizes.idxmax()
    if sizes.max() > max(1, len(table) * wanted / 2):
        logger.warning(
            "%d of %d pairs form one group, on one side: they %s",
            sizes.max(),
            len(table),
            _reason(keys[largest]),
        )
    if not wanted / 2 <= got <= 1.5 * wanted:
        logger.warning(
            "%.0f %% of the pairs are held out instead of %.0f %%: groups are assigned "
            "at random; try another split.seed",
            100 * got,
            100 * wanted,
        )


def _summary(table: pd.DataFrame, copies: dict[str, Any]) -> dict[str, Any]:
    """The content of `summary.json`; DVC takes scalars outside lists as metrics."""
    sizes = table.groupby("group").size()
    held_out = int((table["split"] == SPLITS[1]).sum())
    return {
        "num_pairs": len(table),
        "num_train": len(table) - held_out,
        "num_validation": held_out,
        "validation_fraction": held_out / len(table),
        "num_groups": len(sizes),
        "largest_group": int(sizes.max()),
        "by_class": _by("class_name", table),
        **({"by_site": _by("site", table)} if table["site"].any() else {}),
        **copies,
    }


def _by(column: str, table: pd.DataFrame) -> dict[Hashable, Any]:
    counts = pd.crosstab(table[column], table["split"]).add_prefix("num_")
    counts["num_groups"] = table.groupby(column)["group"].nunique()
    return counts.to_dict("index")


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    input_check.by_dvc()
    split(load_params().split)


if __name__ == "__main__":
    errors.run(main)
