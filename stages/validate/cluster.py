"""Shards measured by the workers of a Dask cluster, one task per shard.

A worker reads the shard itself, under the same absolute path: workers on other hosts
need the repository's `data/` on a shared file system, at the same place, and the same
code. Each task checks both. Dask repeats the tasks of a worker that died, and gives up
on a task that killed several.
"""

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa

from stages.core import imaging
from stages.core.errors import NetworkError, PipelineError
from stages.datasets import pairs
from stages.validate import facts

CONNECT_S = 15  # timeout for the scheduler's answer
WORKER_S = 300  # timeout for the first worker: an elastic cluster takes minutes
_HERE = "or unset DASK_SCHEDULER_ADDRESS to measure on this machine"
_SOURCES = [Path(str(module.__file__)) for module in (imaging, pairs, facts)]
# A hash of the code and libraries that decide the facts of a shard.
CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in _SOURCES)
    + f"{cv2.__version__} {np.__version__} {PIL.__version__} {pa.__version__}".encode()
).hexdigest()


def measure(
    address: str, shards: list[Path], *, max_image_pixels: int
) -> Iterator[list[facts.Facts]]:
    """Yields the facts of each shard's pairs, in order.

    `address` is the scheduler's, such as `tcp://10.0.0.5:8786`.

    Raises:
        NetworkError: If the scheduler or its workers are missing.
        PipelineError: If a worker has other code or files, or a shard kills workers.
    """
    try:
        import distributed
    except ModuleNotFoundError:
        raise PipelineError(
            f"DASK_SCHEDULER_ADDRESS names {address}, but the package `distributed` is "
            f"not installed; install the extra `scale`, {_HERE}"
        ) from None

    # By value: the scheduler opens it too and need not have this package installed.
    def task(path: str, **values: Any) -> list[facts.Facts]:
        from pathlib import Path

        from stages.validate.cluster import measure_shard

        return measure_shard(Path(path), **values)

    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NetworkError(
            f"no Dask scheduler answers at {address}, which DASK_SCHEDULER_ADDRESS "
            f"names ({reason}); start one with `dask scheduler`, {_HERE}"
        ) from None
    start = (
        "start workers in the repository's root with "
        f".venv/bin/python -m dask worker {address}"
    )
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKER_S)
            futures = [
                client.submit(
                    task,
                    str(shard.absolute()),
                    size=shard.stat().st_size,
                    code=CODE,
                    max_image_pixels=max_image_pixels,
                    pure=False,
                )
                for shard in shards
            ]
            for future in futures:
                yield future.result()
        except TimeoutError:
            raise NetworkError(
                f"the Dask scheduler at {address} has had no worker for {WORKER_S} s; "
                f"{start}, {_HERE}"
            ) from None
        except CancelledError:
            raise NetworkError(
                f"the Dask scheduler at {address} went away; start it and its "
                f"workers, then run the same command again, {_HERE}"
            ) from None
        except distributed.KilledWorker as error:
            shard = shards[[f.key for f in futures].index(error.task)]
            raise PipelineError(
                f"{error.allowed_failures + 1} Dask workers died while they measured "
                f"{shard}; see their logs, give them more memory or fewer threads, "
                f"{_HERE}"
            ) from None
        except ModuleNotFoundError as error:
            raise PipelineError(
                f"a Dask worker has no module {error.name!r}; {start}"
            ) from None


def measure_shard(
    path: Path, *, size: int, code: str, max_image_pixels: int
) -> list[facts.Facts]:
    """One task, on a worker; `size` and `code` are those where the stage runs.

    Raises:
        PipelineError: If this worker has other code or files.
    """
    host = socket.gethostname()
    if code != CODE:
        raise PipelineError(
            f"a Dask worker on {host} runs other code or libraries; bring it to the "
            "same commit and environment and restart it"
        )
    if not path.exists() or path.stat().st_size != size:
        raise PipelineError(
            f"a Dask worker on {host} does not see {path} as it is here; put the "
            "repository on a file system that all hosts share, at the same path, "
            f"and wait until they see it, {_HERE}"
        )
    cv2.setNumThreads(1)
    return [
        facts.measure_pair(pair, max_image_pixels)
        for pair in pairs.read_shard(path, batch_pairs=32)
    ]
