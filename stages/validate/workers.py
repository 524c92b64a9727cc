"""Who measures: threads of this machine, or the workers of a Dask cluster.

Both have `facts.measure_rows` measure the same pairs, and the results are put in the
shards' order: the table is the same, bit for bit, whoever measured.
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from stages.core import expectations
from stages.core.errors import PipelineError
from stages.datasets import pairs
from stages.validate import cluster, facts

# Dask's own name for it. No param: who measures does not change what is measured.
ADDRESS = "DASK_SCHEDULER_ADDRESS"

_THREADS_MAX = 8  # one reader feeds them; each may hold an image of the largest size
# A thread's portion: small enough to balance, large enough to outweigh its overhead.
_PORTION_PAIRS = 16
_PORTION_BYTES = 8 << 20  # encoded; a larger pair is a portion of its own
_PORTIONS = 4  # waiting for each thread


def measure(folder: Path, *, max_image_pixels: int) -> pd.DataFrame:
    """Measures every pair of an ingested data set.

    Memory holds the facts and a few portions of encoded pairs, however many there are.

    Args:
        folder: Ingested shards.
        max_image_pixels: An image that declares more is left undecoded.

    Returns:
        A row a pair, in shard order, with the columns of `facts.SCHEMA`.

    Raises:
        PipelineError: If the shards are missing or corrupt, or the cluster is unfit.
    """
    shards = pairs.shard_paths(folder)
    sizes = [pairs.num_rows(shard) for shard in shards]
    tables = [facts.SCHEMA.empty_table()] * len(shards)
    unfinished: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    address = os.environ.get(ADDRESS, "").strip()
    measured = (
        cluster.measure(address, shards, max_image_pixels=max_image_pixels)
        if address
        else _on_threads(shards, max_image_pixels=max_image_pixels)
    )
    with tqdm(total=sum(sizes), unit="pair", desc="measure", disable=None) as bar:
        for place, rows in measured:
            unfinished[place] += rows
            bar.update(len(rows))
            if len(unfinished[place]) == sizes[place]:
                # As columns at once: as rows, facts take ten times the memory.
                tables[place] = pa.Table.from_pylist(
                    unfinished.pop(place), schema=facts.SCHEMA
                )
    for place in unfinished:
        raise PipelineError(
            f"{shards[place]} declares {sizes[place]} pairs and holds "
            f"{len(unfinished[place])}; remove it and run `dvc repro ingest`"
        )
    table: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return table


def _on_threads(
    shards: list[Path], *, max_image_pixels: int
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yields a shard's place and the facts of some of its pairs, all in order."""
    threads = min(os.cpu_count() or 1, _THREADS_MAX)
    waiting: deque[tuple[int, Future[list[dict[str, Any]]]]] = deque()
    with (
        facts.quiet_opencv(),
        expectations.imported_meanwhile(),
        ThreadPoolExecutor(threads) as pool,
    ):
        for place, rows in _portions(shards):
            waiting.append(
                (
                    place,
                    pool.submit(
                        facts.measure_rows, rows, max_image_pixels=max_image_pixels
                    ),
                )
            )
            while len(waiting) > _PORTIONS * threads:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _portions(shards: list[Path]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yields a shard's place and some of its rows, all in order."""
    for place, shard in enumerate(shards):
        for frame in pairs.read_shard(shard, batch_pairs=2 * _PORTION_PAIRS):
            rows: list[dict[str, Any]] = []
            size = 0
            for row in facts.rows_of(frame):
                rows.append(row)
                size += sum(len(row[side] or b"") for side in ("image", "mask"))
                if len(rows) == _PORTION_PAIRS or size >= _PORTION_BYTES:
                    yield place, rows
                    rows, size = [], 0
            if rows:
                yield place, rows
