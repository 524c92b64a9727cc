"""The pair table: its columns, and how its shards are read and written."""

import contextlib
import errno
import hashlib
import re
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import paths
from stages.core.errors import PipelineError

if TYPE_CHECKING:  # ingest writes shards without it
    import pandas as pd


@dataclass(frozen=True)
class Pair:
    """One image and its mask, as the source holds them; bytes unaltered.

    A DICOM file alone is not: its grey values are here as PNG, without its patient.

    An orphan has `None` on the missing side. `problem` says, in words for the
    quality report, why bytes could not be taken (too large, corrupt in the zip).
    """

    pair_id: str  # unique in the data set; shown to people
    class_name: str
    group: str  # patient or study where the layout knows it, else ""
    given_split: str  # the side the data set's own split puts it on, else ""
    image_path: str  # inside the source, POSIX; "" if there is none
    mask_path: str
    image: bytes | None
    mask: bytes | None
    problem: str = ""
    may_be_empty: bool = False  # whether an empty mask is no mistake (a lesion's)


SHARD_SCHEMA = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("given_split", pa.string(), nullable=False),
        pa.field("image_path", pa.string(), nullable=False),
        pa.field("mask_path", pa.string(), nullable=False),
        pa.field("image", pa.binary()),
        pa.field("mask", pa.binary()),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("may_be_empty", pa.bool_(), nullable=False),
    ]
)
SPLITS = ("train", "validation")
_READ_BYTES = 1 << 20  # of a column at a time


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that puts `COVID-2` before `COVID-10`; a total order."""
    key = []
    for place, part in enumerate(re.split(r"([0-9]+)", name)):
        if place % 2:  # digits, compared as a number of any length
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return key, name


def write_shards(
    pairs: Iterable[Pair],
    folder: Path,
    *,
    shard_pairs: int,
    shard_bytes: int | None = None,
) -> int:
    """Writes Parquet shards `CLASS-00000.parquet`, cut by rows or bytes.

    A shard never holds two classes, and where it ends depends on no later pair but
    the next, so appended data changes a class's last shard only. At most two shards
    are in memory: one is written while the next is read. Same pairs, same bytes.

    Args:
        pairs: In class order, then natural order.
        folder: Where to write; made if missing.
        shard_pairs: Most rows in a shard.
        shard_bytes: Most bytes of images and masks in a shard of two rows or more;
            None sets no bound.

    Returns:
        The number of pairs written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    rows: list[Pair] = []
    size = total = 0
    written: Future[None] | None = None

    with ThreadPoolExecutor(1) as pool:

        def flush() -> None:
            nonlocal rows, written
            if written:
                written.result()
            name = rows[0].class_name
            index = counts.get(name, 0)
            counts[name] = index + 1
            path = folder / f"{paths.slug(name)}-{index:05d}.parquet"
            written = pool.submit(_write_shard, rows, path)
            rows = []

        for pair in pairs:
            added = len(pair.image or b"") + len(pair.mask or b"")
            is_full = len(rows) >= shard_pairs or (
                shard_bytes is not None and size + added > shard_bytes
            )
            if rows and (is_full or rows[0].class_name != pair.class_name):
                flush()
                size = 0
            rows.append(pair)
            size += added
            total += 1
        if rows:
            flush()
        if written:
            written.result()
    return total


def _write_shard(rows: list[Pair], path: Path) -> None:
    columns = {
        field.name: pa.array([getattr(row, field.name) for row in rows], field.type)
        for field in SHARD_SCHEMA
    }
    pq.write_table(
        pa.table(columns, schema=SHARD_SCHEMA),
        path,
        compression="none",  # PNG bytes do not shrink
        use_dictionary=False,
        write_statistics=False,
        write_batch_size=1,  # a page ends at a megabyte: it is read as a whole
    )


def shard_paths(folder: Path = paths.INGESTED) -> list[Path]:
    """The shards of an ingested data set, in natural order.

    Raises:
        PipelineError: If there are none.
    """
    shards = sorted(folder.glob("*.parquet"), key=lambda p: natural_key(p.name))
    if not shards:
        raise PipelineError(
            f"{folder} should hold Parquet shards but holds none; "
            "run `dvc repro ingest` (or `dvc pull`) to make them"
        )
    return shards


def num_rows(path: Path) -> int:
    """The number of pairs in a shard, from its footer; errors as in `read_shard`."""
    with _open(path) as file:
        return int(file.metadata.num_rows)


def read_shard(
    path: Path, *, columns: Iterable[str] | None = None, batch_pairs: int = 128
) -> "Iterator[pd.DataFrame]":
    """Yields a shard's rows in frames of at most `batch_pairs`.

    Args:
        path: A shard that `write_shards` wrote.
        columns: Names to read; all by default.
        batch_pairs: Rows in memory at a time.

    Raises:
        PipelineError: If the file is missing or no such shard.
    """
    wanted = list(columns) if columns is not None else SHARD_SCHEMA.names
    with _open(path) as file:
        for batch in file.iter_batches(batch_size=batch_pairs, columns=wanted):
            batch.validate(full=True)  # else text that is no UTF-8 is found later
            yield batch.to_pandas()


def rows_named(frame: "pd.DataFrame", pair_ids: Container[str]) -> "pd.DataFrame":
    """The rows of some pairs, whose ids are a set or a dict.

    `isin` hashes all the ids for every frame anew: at 32,000 pairs that took most of
    the time of loading them.
    """
    mask = [pair_id in pair_ids for pair_id in frame["pair_id"]]
    return frame.loc[np.array(mask, bool)]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    """Opens a shard; what is wrong with it, then or while it is read, is a sentence."""
    try:
        # By default a shard's images would be in memory as a whole, and more than once.
        with pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            if not file.schema_arrow.equals(SHARD_SCHEMA):
                raise PipelineError(
                    f"{path} is a Parquet file but not one of ingest's shards; "
                    "remove it and run `dvc repro ingest`"
                )
            if _is_packed(file.metadata):
                # A few bytes could unpack to gigabytes.
                raise PipelineError(
                    f"{path} is packed, as ingest's shards never are; "
                    "remove it and run `dvc repro ingest`"
                )
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT):
            raise
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"{path} should be a shard that ingest wrote but cannot be read "
            f"({reason}); remove it and run `dvc repro ingest`"
        ) from None


def _is_packed(metadata: pq.FileMetaData) -> bool:
    columns = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    return any(
        column.compression != "UNCOMPRESSED" or column.has_dictionary_page
        for column in columns
    )


def read_pairs(
    pair_ids: Iterable[str],
    folder: Path = paths.INGESTED,
) -> "Iterator[pd.Series]":
    """Yields the rows of the given pairs, in shard order, a few in memory at a time.

    Args:
        pair_ids: Ids to find.
        folder: Ingested shards.

    Raises:
        PipelineError: If a shard is corrupt, or an id is in none of them.
    """
    wanted = set(pair_ids)
    for shard in shard_paths(folder):
        if not wanted:
            return
        for frame in read_shard(shard):
            for _, row in rows_named(frame, wanted).iterrows():
                wanted.discard(row["pair_id"])
                yield row
    if wanted:
        example = min(wanted, key=natural_key)
        raise PipelineError(
            f"{folder} lacks {len(wanted)} pairs that the split names, such as "
            f"{example!r}; run `dvc repro` so that both come from the same data"
        )


def read_splits(path: Path = paths.SPLIT_PAIRS) -> "pd.DataFrame":
    """Reads the split table `pair_id,class_name,group,split`.

    Raises:
        PipelineError: If it is missing, lacks a column or names another split.
    """
    import pandas as pd

    names = ["pair_id", "class_name", "group", "split"]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(
            f"{path} is missing; run `dvc repro split` (or `dvc pull`) to make it"
        ) from None
    except (ValueError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(
            f"{path} should be a CSV table but is not ({reason}); run `dvc repro split`"
        ) from None
    if list(table.columns) != names or not table["split"].isin(SPLITS).all():
        raise PipelineError(
            f"{path} should have the columns {','.join(names)} and splits "
            f"{' and '.join(SPLITS)}; run `dvc repro split`"
        )
    return table


def seeded_rank(name: str, seed: int) -> str:
    """A hash that orders names at random but the same way for the same seed.

    Ranking by it and cutting at a quota moves only those at the cut when names are
    added.
    """
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
