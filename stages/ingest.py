"""Stores a source as Parquet shards, one row per image/mask pair.

Reads:  the source that `ingest.source` names (phantoms, a folder or zip, Kaggle)
Writes: data/ingested/, data/ingested.json
Why:    later stages read a few shards faster than 42,000 small files.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.core import errors, files, input_check, paths, plugins
from stages.core.params import SITES, IngestParams, load_params
from stages.datasets import sites
from stages.datasets.pairs import Pair, write_shards

logger = logging.getLogger(__name__)


def ingest(
    params: IngestParams,
    *,
    out: Path = paths.INGESTED,
    summary: Path = paths.INGESTED_SUMMARY,
) -> Path:
    """Writes the pairs of the source as shards, and their counts as JSON.

    Returns:
        `out`, the folder of shards.

    Raises:
        PipelineError: If the source does not match the params.
    """
    counts: Counter[str] = Counter()
    by_class: Counter[str] = Counter()
    by_site: Counter[str] = Counter()
    with files.replacing(out) as partial:
        found, described = _source(params)
        bar = tqdm(found, desc="ingest", unit=" pairs", disable=None)
        pairs = _counted(bar, counts, by_class, by_site)
        num_pairs = write_shards(
            pairs,
            partial,
            shard_pairs=params.shard_pairs,
            shard_bytes=params.shard_bytes,
        )
        facts = {
            "source": " and ".join(params.source),
            **described,
            "classes": dict(by_class),
            "num_pairs": num_pairs,
            "num_images_without_mask": counts["images_without_mask"],
            "num_masks_without_image": counts["masks_without_image"],
            "num_unreadable": counts["unreadable"],
            "num_shards": sum(1 for _ in partial.glob("*.parquet")),
            "sha256": files.sha256(partial),
        }
    for name, of_site in facts.get("sites", {}).items():
        of_site["num_pairs"] = by_site[name]
    files.write_json(summary, facts)
    for class_name, number in by_class.items():
        logger.info("%s: %d pairs", class_name, number)
    faulty = sum(counts.values())
    if faulty:
        logger.warning(
            "%d of %d pairs lack a side or could not be read; validate rejects them",
            faulty,
            num_pairs,
        )
    logger.info("%d pairs in %s", num_pairs, out)
    return out


def _source(params: IngestParams) -> tuple[Iterable[Pair], dict[str, Any]]:
    """The pairs of the source, and the facts of its data set."""
    if params.layout == SITES:
        found = sites.find(params)
        pairs = chain.from_iterable(site.pairs() for site in found)
        of_sites = {site.name: asdict(site.facts) for site in found}
        return pairs, asdict(sites.facts(found, params)) | {"sites": of_sites}
    source = plugins.load("stages.datasets.sources", params.source[0])
    return source.pairs(params), asdict(source.describe(params))


def _counted(
    pairs: Iterable[Pair],
    counts: Counter[str],
    by_class: Counter[str],
    by_site: Counter[str],
) -> Iterator[Pair]:
    """Passes pairs through and counts them by class, by site and by defect."""
    for pair in pairs:
        by_class[pair.class_name] += 1
        by_site[pair.site] += 1
        if pair.problem:
            counts["unreadable"] += 1
        elif not pair.mask_path:
            counts["images_without_mask"] += 1
        elif not pair.image_path:
            counts["masks_without_image"] += 1
        yield pair


def main() -> None:
    """Runs the stage as `dvc.yaml` names it."""
    input_check.by_dvc()
    ingest(load_params().ingest)


if __name__ == "__main__":
    errors.run(main)
