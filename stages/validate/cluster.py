"""Shards measured by the workers of a Dask cluster, one task a shard.

A worker reads a shard itself, under the absolute path that it has here: workers on
other hosts need the repository's `data/` on a shared file system, at the same place,
and this very code. Both are checked with each task. What dies with a worker is done
anew by another; a shard that kills worker after worker ends the run.
"""

import functools
import hashlib
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa

from stages.core import imaging
from stages.core.errors import NetworkError, PipelineError
from stages.datasets import pairs
from stages.validate import facts

logger = logging.getLogger(__name__)

CONNECT_S = 15  # for the scheduler to answer
NO_WORKER_S = 300  # without any worker: a cluster that grows on demand takes minutes
_LOOK_S = 2  # between two looks at the number of workers
_BATCH_PAIRS = 32  # of a shard in a worker's memory at a time
_HERE = "or unset DASK_SCHEDULER_ADDRESS to measure on this machine"

Stamp = tuple[int, int]  # size in bytes, time of change in milliseconds
Rows = list[dict[str, Any]]


def measure(
    address: str, shards: list[Path], *, max_image_pixels: int
) -> Iterator[tuple[int, Rows]]:
    """Yields each shard's place and the facts of its pairs, as they get ready.

    Args:
        address: The scheduler's, such as `tcp://10.0.0.5:8786`.
        shards: What to measure.
        max_image_pixels: An image that declares more is left undecoded.

    Raises:
        PipelineError: If the cluster is not there, not fit, or died of a shard.
    """
    distributed = _library(address)
    with _connected(distributed, address) as client:
        run, code = uuid.uuid4().hex, _code()
        places = {f"{shard.name} {run}": place for place, shard in enumerate(shards)}
        task = _task()
        futures = [
            client.submit(
                task,
                str(shard.absolute()),
                stamp=_stamp(shard),
                code=code,
                max_image_pixels=max_image_pixels,
                key=key,
                pure=False,
            )
            for key, shard in zip(places, shards, strict=True)
        ]
        done = distributed.as_completed(futures, loop=client.loop)
        del futures  # a result is dropped as soon as it is taken
        for future in _finished(done, client, address):
            place = places[future.key]
            try:
                rows = future.result()
            except distributed.KilledWorker as error:
                raise _killed(shards[place], error.allowed_failures + 1) from None
            except CancelledError:
                raise _lost(address) from None
            except ModuleNotFoundError as error:
                raise PipelineError(
                    f"a Dask worker has no module {error.name!r}; start workers in the "
                    "repository's root with its own environment: "
                    f".venv/bin/python -m dask worker {address}"
                ) from None
            yield place, rows


def measure_shard(
    path: Path, *, stamp: Stamp, code: dict[str, str], max_image_pixels: int
) -> Rows:
    """One task, on a worker.

    Args:
        path: The shard, absolute.
        stamp: What `_stamp` says of it where the stage runs.
        code: What `_code` says there.
        max_image_pixels: As in `measure`.
    """
    host = socket.gethostname()
    for name, expected in code.items():
        if (found := _code()[name]) != expected:
            raise PipelineError(
                f"a Dask worker on {host} runs another version of {name} ({found}, "
                f"expected {expected}); bring it to the same commit and environment "
                "and restart it"
            )
    try:
        same = _stamp(path) == stamp
    except FileNotFoundError:
        same = False
    if not same:
        raise PipelineError(
            f"a Dask worker on {host} does not see {path} as it is here; put the "
            "repository on a file system that all hosts share, at the same path, "
            f"and wait until they see it, {_HERE}"
        )
    facts.hush_opencv()
    return [
        measured
        for frame in pairs.read_shard(path, batch_pairs=_BATCH_PAIRS)
        for measured in facts.measure_rows(
            facts.rows_of(frame), max_image_pixels=max_image_pixels
        )
    ]


def _task() -> Callable[..., Rows]:
    """The task as it travels: a function that nobody can import travels as a whole.

    The scheduler opens it too, and need not have this package.
    """

    def task(path: str, **values: Any) -> Rows:
        from pathlib import Path

        from stages.validate.cluster import measure_shard

        return measure_shard(Path(path), **values)

    return task


@functools.cache
def _code() -> dict[str, str]:
    """What decides the facts beside a shard's bytes, as it was when first asked."""
    digest = hashlib.sha256()
    for module in (imaging, pairs, facts):
        digest.update(Path(str(module.__file__)).read_bytes())
    return {
        "this code": digest.hexdigest()[:12],
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
    }


def _stamp(path: Path) -> Stamp:
    """Tells a file from an older or another one of its name, as rsync does."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns // 1_000_000


def _library(address: str) -> ModuleType:
    """The `distributed` package, which only who has a cluster needs."""
    try:
        import distributed
    except ModuleNotFoundError:
        raise PipelineError(
            f"DASK_SCHEDULER_ADDRESS names {address}, but the package `distributed` is "
            f"not installed; install the extra `scale`, {_HERE}"
        ) from None
    for name in ("distributed.client", "distributed.comm", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it in a sentence
    return distributed  # type: ignore[no-any-return]


@contextmanager
def _connected(distributed: ModuleType, address: str) -> Iterator[Any]:
    """A client of the scheduler; what it left there goes when the client does."""
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"no Dask scheduler answers at {address}, which DASK_SCHEDULER_ADDRESS "
            f"names ({reason}); start one with `dask scheduler`, {_HERE}"
        ) from None
    with client:
        yield client


def _finished(done: Any, client: Any, address: str) -> Iterator[Any]:
    """Yields futures as they finish, as long as somebody is there to finish them."""
    looked = seen = time.monotonic()
    told = False
    while not done.is_empty():
        if ready := done.next_batch(block=False):
            yield from ready
            continue
        time.sleep(0.05)
        now = time.monotonic()
        if now - looked < _LOOK_S:
            continue
        looked = now
        if client.status != "running":
            raise _lost(address)
        if client.scheduler_info(n_workers=0)["n_workers"]:
            seen, told = now, False
        elif now - seen > NO_WORKER_S:
            raise NetworkError(
                f"the Dask scheduler at {address} has had no worker for "
                f"{NO_WORKER_S} s; start some in the repository's root with "
                f".venv/bin/python -m dask worker {address}, {_HERE}"
            )
        elif not told:
            told = True
            logger.warning("%s has no Dask worker; waiting for one", address)


def _killed(shard: Path, times: int) -> PipelineError:
    return PipelineError(
        f"{times} Dask workers died with {shard}, or a shard beside it, in hand; "
        "give workers more memory or fewer threads (their logs say what they died of), "
        f"{_HERE}"
    )


def _lost(address: str) -> NetworkError:
    return NetworkError(
        f"the Dask scheduler at {address} went away while shards were measured; start "
        f"it and its workers, then run the same command again, {_HERE}"
    )
