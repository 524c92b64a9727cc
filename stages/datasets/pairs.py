"""A pair: one image and its mask, and the Parquet shards that hold pairs.

A field of `Pair` is also a column of the shards and of the quality table. To add one,
add it here and set it in a layout or a source.
"""

import contextlib
import dataclasses
import errno
import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core import imaging, paths
from stages.core.errors import PipelineError
from stages.core.imaging import Grey, Mask

if TYPE_CHECKING:  # its import takes half a second, and ingest does without
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One image and its mask.

    A layout finds a pair by its names alone; a source then adds the bytes, unaltered
    except for DICOM images, which become PNG. An orphan has an empty path and no bytes
    on the missing side.
    """

    pair_id: str  # unique in the data set; shown to people
    class_name: str
    site: str = ""  # hospital or data set, "" if there is one alone
    group: str = ""  # patient or study, "" if unknown
    given_split: str = ""  # side in the data set's official split, "" if it has none
    image_path: str  # inside the source, POSIX
    mask_path: str
    region_path: str = ""  # mask of what the foreground is a part of, "" if none
    image: bytes | None = None
    mask: bytes | None = None
    region: bytes | None = None
    problem: str = ""  # why the source could not read the bytes, for people
    may_be_empty: bool = False  # whether an empty mask is valid (a lesion's)
    # Between the rows and columns of the image, millimetres; None if unknown.
    spacing: tuple[float, float] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether both sides have a file."""
        return bool(self.image_path and self.mask_path)

    def content(self) -> tuple[bytes, bytes]:
        """The bytes of image and mask.

        Raises:
            PipelineError: If one is missing.
        """
        if self.image is None or self.mask is None:
            raise PipelineError(
                f"{self.pair_id} should have an image and a mask but lacks one; "
                "run `dvc repro` so that all stages see the same data"
            )
        return self.image, self.mask

    def decoded(self, channels: int) -> tuple[Grey, Mask]:
        """The image, (H, W) or (H, W, 3), and the mask, each at its own size.

        Raises:
            PipelineError: If one is missing or cannot be decoded.
        """
        image, mask = self.content()
        try:
            return imaging.decode_image(image, channels), imaging.decode_mask(mask)
        except imaging.UnreadableImageError as error:
            raise PipelineError(
                f"{self.pair_id}: accepted by validate but cannot be decoded "
                f"({error}); run `dvc repro` so that both see the same data"
            ) from None


_TYPES = {str: pa.string(), bool: pa.bool_(), bytes | None: pa.binary()}
SHARD_SCHEMA = pa.schema(
    [
        pa.field(field.name, _TYPES[field.type], nullable=field.type == bytes | None)  # type: ignore[index]
        for field in dataclasses.fields(Pair)
        if field.type in _TYPES
    ]
)
# Columns of a shard in which any pair has a value.
OPTIONAL = [pa.field("spacing", pa.list_(pa.float64(), 2))]
SPLITS = ("train", "validation")
_READ_BYTES = 1 << 20  # per column at a time


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

    A shard holds one class of one site (`SITE-CLASS-00000.parquet`), and only the pairs
    up to its end decide where it ends, so that appended data change only a class's last
    shard. One shard is in memory at a time. Same pairs, same bytes.

    Args:
        pairs: By site, then by class, then in natural order.
        folder: Where to write; created if missing.
        shard_pairs: Maximum number of rows per shard.
        shard_bytes: Maximum bytes per shard of several rows; None sets no limit.

    Returns:
        The number of pairs written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    total = 0
    for rows in _shards(pairs, shard_pairs, shard_bytes):
        name = "-".join(filter(None, _place(rows[0])))
        _write_shard(rows, folder / f"{paths.slug(name)}-{counts[name]:05d}.parquet")
        counts[name] += 1
        total += len(rows)
    return total


def _shards(
    pairs: Iterable[Pair], shard_pairs: int, shard_bytes: int | None
) -> Iterator[list[Pair]]:
    """Cuts pairs into the rows of one shard each."""
    rows: list[Pair] = []
    size = 0
    for pair in pairs:
        added = sum(len(b or b"") for b in (pair.image, pair.mask, pair.region))
        is_full = len(rows) >= shard_pairs or (
            shard_bytes is not None and size + added > shard_bytes
        )
        if rows and (is_full or _place(rows[0]) != _place(pair)):
            yield rows
            rows, size = [], 0
        rows.append(pair)
        size += added
    if rows:
        yield rows


def _place(pair: Pair) -> tuple[str, str]:
    return pair.site, pair.class_name


def _write_shard(rows: list[Pair], path: Path) -> None:
    used = (f for f in OPTIONAL if any(getattr(row, f.name) for row in rows))
    schema = pa.schema([*SHARD_SCHEMA, *used])
    columns = {
        field.name: pa.array([getattr(row, field.name) for row in rows], field.type)
        for field in schema
    }
    pq.write_table(
        pa.table(columns, schema=schema),
        path,
        compression="none",  # PNG bytes do not shrink
        use_dictionary=False,
        write_statistics=False,
        write_batch_size=1,  # ends a page at a megabyte; readers load whole pages
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
    path: Path, *, pair_ids: Container[str] | None = None, batch_pairs: int = 128
) -> Iterator[Pair]:
    """Yields the pairs of a shard in order, `batch_pairs` in memory at a time.

    A shard with none of the wanted `pair_ids` is skipped unread.

    Raises:
        PipelineError: If the file is missing, corrupt or not a shard.
    """
    with _open(path) as file:
        if pair_ids is not None:
            names = file.read(columns=["pair_id"])["pair_id"].to_pylist()
            if not any(name in pair_ids for name in names):
                return
        for batch in file.iter_batches(batch_size=batch_pairs):
            batch.validate(full=True)  # otherwise invalid UTF-8 would fail later
            if pair_ids is not None:
                names = batch["pair_id"].to_pylist()
                batch = batch.filter(pa.array([name in pair_ids for name in names]))
            for row in batch.to_pylist():
                values: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in row.items()
                }
                yield Pair(**values)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    """Opens a shard; errors, also while it is read, become one sentence."""
    from pyarrow.dataset import dataset  # imports pandas

    try:
        # The defaults would load all images of a shard at once, several times.
        with pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False) as file:
            always = [field for field in file.schema_arrow if field not in OPTIONAL]
            if always != list(SHARD_SCHEMA):
                raise PipelineError(
                    f"{path} is a Parquet file but not one of ingest's shards; "
                    "remove it and run `dvc repro ingest`"
                )
            # Refuses an unknown codec, at which `_is_compressed` would end the process.
            dataset(path, format="parquet", exclude_invalid_files=True)
            if _is_compressed(file.metadata):
                # A few bytes could decompress to gigabytes.
                raise PipelineError(
                    f"{path} is compressed, which ingest's shards never are; "
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


def _is_compressed(metadata: pq.FileMetaData) -> bool:
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
    pair_ids: Iterable[str], folder: Path = paths.INGESTED
) -> Iterator[Pair]:
    """Yields the given pairs, in shard order, a few in memory at a time.

    Raises:
        PipelineError: If a shard is corrupt, or an id is in none of them.
    """
    wanted = set(pair_ids)
    for shard in shard_paths(folder):
        if not wanted:
            return
        for pair in read_shard(shard, pair_ids=wanted.copy()):
            wanted.discard(pair.pair_id)
            yield pair
    if wanted:
        example = min(wanted, key=natural_key)
        raise PipelineError(
            f"{folder} lacks {len(wanted)} pairs that the split names, such as "
            f"{example!r}; run `dvc repro` so that both come from the same data"
        )


def read_splits(path: Path = paths.SPLIT_PAIRS) -> "pd.DataFrame":
    """Reads the split table `pair_id,class_name,group,split`, then maybe `site`.

    Raises:
        PipelineError: If it is missing, lacks a column or a split, or names another.
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
    if list(table.columns) not in (names, [*names, "site"]) or set(
        table["split"]
    ) != set(SPLITS):
        raise PipelineError(
            f"{path} should have the columns {','.join(names)} and rows of the splits "
            f"{' and '.join(SPLITS)}; run `dvc repro split`"
        )
    return table


def is_of_trained_site(table: "pd.DataFrame") -> "pd.Series[bool]":
    """Whether each row of a split table is of a site that has pairs to train on.

    Sites without such pairs are held out whole. Without sites, all rows are.
    """
    if "site" not in table:
        return table["split"].isin(SPLITS)
    return table["site"].isin(table.loc[table["split"] == SPLITS[0], "site"])


def seeded_rank(name: str, seed: int) -> str:
    """A hash that orders names at random, in the same way for the same seed.

    If names are added, only those at a cut of this order change sides.
    """
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
