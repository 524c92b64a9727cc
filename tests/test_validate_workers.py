"""Does a Dask cluster find the same facts as this machine, whatever befalls it?"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client

from stages.core import paths
from stages.core.errors import NetworkError, PipelineError
from stages.datasets import pairs
from stages.datasets.pairs import Pair, write_shards
from stages.validate import cluster, workers
from tests.conftest import ROOT, ingested_pair, lungs, png

BOUND = 10**6
SHARD_PAIRS = 4
# Slow enough to be caught in the act; each decoded file is a line with who did it.
WORKER = """
import os, signal, time
from stages.core import imaging

# A preload is run twice.
read = imaging.original = getattr(imaging, "original", imaging.read)

def slow_read(encoded, **options):
    if b"poison" in encoded:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(os.environ["DECODED"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.03)
    return read(encoded, **options)

imaging.read = slow_read
"""


def pair(number: int, extra: bytes = b"") -> Pair:
    image, mask = lungs(number)
    return ingested_pair(f"COVID-{number}", image, mask, image=png(image) + extra)


def ingest(count: int, *more: Pair) -> None:
    write_shards(
        [*map(pair, range(count)), *more], paths.INGESTED, shard_pairs=SHARD_PAIRS
    )


def measured() -> pd.DataFrame:
    return workers.measure(paths.INGESTED, max_image_pixels=BOUND)


def as_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Cluster:
    """A real scheduler on loopback, and workers as a user starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.decoded = folder / "decoded"
        self.decoded.touch()
        (folder / "slow.py").write_text(WORKER)
        self.processes: list[subprocess.Popen[bytes]] = []
        listed = folder / "scheduler.json"
        # It is started where this project is not.
        words = ["--port", "0", "--scheduler-file", str(listed)]
        self.scheduler = self._start("dask_scheduler", *words, cwd=folder)
        wait_until(lambda: listed.exists() and listed.read_text().endswith("}"))
        self.address = json.loads(listed.read_text())["address"]

    def workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        """Starts workers; they are all there when this returns."""
        started = [self._worker() for _ in range(count)]
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=240)
        return started

    def _worker(self) -> subprocess.Popen[bytes]:
        words = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0"]
        words += ["--local-directory", str(self.folder / "scratch")]
        words += ["--preload", str(self.folder / "slow.py"), self.address]
        return self._start("dask_worker", *words, cwd=ROOT)

    def files_by(self, worker: subprocess.Popen[bytes]) -> int:
        """How many files a worker has decoded."""
        return self.decoded.read_text().split().count(str(worker.pid))

    def stop(self) -> None:
        """Ends what this started."""
        for process in self.processes:
            process.kill()
            process.wait()

    def _start(self, name: str, *words: str, cwd: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{name}", *words]
        process = subprocess.Popen(
            [*command, "--no-dashboard", "--host", "127.0.0.1"],
            cwd=cwd,
            env=os.environ
            | {
                "DECODED": str(self.decoded),
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        self.processes.append(process)
        return process


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    found = Cluster(tmp_path_factory.mktemp("dask"))
    yield found
    found.stop()


@pytest.mark.slow
def test_a_cluster_finds_the_same_though_a_worker_is_killed(dask, monkeypatch):
    ingest(40, pair(99, b"longer"))
    expected = measured()
    assert list(expected["pair_id"]) == [f"COVID-{n}" for n in (*range(40), 99)]

    first, second = dask.workers(2)
    plain = cluster.measure

    def with_a_death(*words: Any, **values: Any) -> Iterator[tuple[int, Any]]:
        for number, found in enumerate(plain(*words, **values)):
            if number == 2:
                # In the middle of a shard: its first files are decoded.
                wait_until(lambda: dask.files_by(first) % (2 * SHARD_PAIRS) in (2, 3))
                first.send_signal(signal.SIGKILL)
            yield found

    monkeypatch.setattr(cluster, "measure", with_a_death)
    monkeypatch.setenv(workers.ADDRESS, dask.address)
    assert as_bytes(measured()) == as_bytes(expected)
    assert first.wait() == -signal.SIGKILL
    assert dask.files_by(first)
    assert dask.files_by(second)
    # What the dead one had begun, and perhaps what it had not handed over, was redone.
    assert dask.files_by(first) + dask.files_by(second) > 2 * len(expected)
    second.kill()
    second.wait()


@pytest.mark.slow
def test_a_shard_that_kills_workers_is_named(dask, monkeypatch):
    ingest(3, pair(99, b"poison"))
    monkeypatch.setenv(workers.ADDRESS, dask.address)
    crew = dask.workers(2)
    with pytest.raises(PipelineError, match=r"2 Dask workers died while .*COVID-00000"):
        measured()
    assert [worker.wait() for worker in crew] == [-signal.SIGKILL] * 2
    monkeypatch.delenv(workers.ADDRESS)
    assert len(measured()) == 4


@pytest.mark.parametrize(
    ("address", "reason"),
    [("tcp://127.0.0.1:9", "Timed out"), ("carrier-pigeon://loft", "carrier-pigeon")],
)
def test_nobody_answers(monkeypatch, address, reason):
    ingest(2)
    monkeypatch.setenv(workers.ADDRESS, address)
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    with pytest.raises(NetworkError, match="no Dask scheduler answers at") as caught:
        measured()
    assert reason in str(caught.value)
    assert "unset DASK_SCHEDULER_ADDRESS" in str(caught.value)


def test_the_package_is_missing(monkeypatch):
    ingest(2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert len(measured()) == 2  # who has no cluster needs no package
    monkeypatch.setenv(workers.ADDRESS, "tcp://10.0.0.5:8786")
    with pytest.raises(PipelineError, match="`distributed` is not installed; install"):
        measured()


def test_a_worker_with_other_code_or_other_files_refuses():
    ingest(2)
    shard = pairs.shard_paths()[0].absolute()
    size = shard.stat().st_size

    def measure(**changes: Any) -> int:
        values = {"size": size, "code": cluster.CODE, "max_image_pixels": BOUND}
        return len(cluster.measure_shard(shard, **values | changes))

    assert measure() == 2
    with pytest.raises(PipelineError, match="runs other code or libraries"):
        measure(code="other")
    with pytest.raises(PipelineError, match=r"does not see .* as it is here"):
        measure(size=size + 1)
