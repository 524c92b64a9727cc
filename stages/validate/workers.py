"""Measures pairs on threads of this machine or on the workers of a Dask cluster.

Both call `facts.measure_pair` and keep the order of the shards, so that the table is
the same to the bit.
"""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from stages.datasets import pairs
from stages.validate import cluster, facts

# Dask's own name. An environment variable, not a param: it does not change the facts.
ADDRESS = "DASK_SCHEDULER_ADDRESS"


def measure(folder: Path, *, max_image_pixels: int) -> pd.DataFrame:
    """Measures every pair of an ingested data set.

    Memory holds the facts of all pairs and the encoded pairs of one shard.

    Returns:
        One row per pair, in shard order, with the columns of `facts.SCHEMA`.

    Raises:
        PipelineError: If the shards are missing or corrupt, or the cluster is unfit.
    """
    shards = pairs.shard_paths(folder)
    sizes = [pairs.num_rows(shard) for shard in shards]
    address = os.environ.get(ADDRESS, "").strip()
    measured = (
        cluster.measure(address, shards, max_image_pixels=max_image_pixels)
        if address
        else _on_threads(shards, max_image_pixels=max_image_pixels)
    )
    tables = []
    with tqdm(total=sum(sizes), unit="pair", desc="measure", disable=None) as bar:
        for size, rows in zip(sizes, measured, strict=True):
            # Columns take a tenth of the memory of rows.
            tables.append(pa.Table.from_pylist(rows, schema=facts.SCHEMA))
            bar.update(size)
    table: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return table


def _on_threads(
    shards: list[Path], *, max_image_pixels: int
) -> Iterator[list[facts.Facts]]:
    """Yields the facts of each shard's pairs, in order."""
    measure_pair = functools.partial(
        facts.measure_pair, max_image_pixels=max_image_pixels
    )
    cv2.setNumThreads(1)  # the pool has a thread per processor
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            yield list(pool.map(measure_pair, pairs.read_shard(shard)))
