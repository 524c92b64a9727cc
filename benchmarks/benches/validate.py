"""Pairs per second of ingest and validate, beside `cv2.imread` of all files.

Both stages as processes, imports included, on a zip; the reading in two threads, on
the same files in a folder. Target: 0.7, within 1.5 GB of memory. Meant for
`--pairs 21165`, the whole database; few pairs show the imports.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from benchmarks import data, processes
from benchmarks.harness import Options, Row, seconds

LONG = False
GB = 1e9


def bench(options: Options) -> list[Row]:
    """Reads, ingests and validates, reads again; the faster reading counts."""
    count = options.size(2000, 12)
    base = data.encoded(options, min(count, data.DRAWN))
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        written = data.write_folder(data.varied(base, count), folder / "files")
        data.zip_folder(folder / "files", folder / "all.zip")
        processes.write_params(data.settings(base, folder / "all.zip"), folder)

        def read() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(_area, map(os.fspath, written)))

        times = [seconds(read)]
        stages = [processes.stage(name, folder) for name in ("ingest", "validate")]
        times.append(seconds(read))
    took = sum(one.import_s + one.work_s for one in stages)
    work = sum(one.work_s for one in stages)
    peak = max(one.peak_bytes for one in stages)
    return [
        Row(
            "ingest and validate",
            count / took,
            "pairs/s",
            count / min(times),
            "cv2.imread in two threads",
            at_least=0.7,
            notes={
                "pairs": count,
                "without imports, pairs/s": count / work,
                "ingest, s": stages[0].work_s,
                "validate, s": stages[1].work_s,
            },
        ),
        Row(
            "most memory held",
            peak / GB,
            "GB",
            at_most=1.5,
        ),
    ]


def _area(path: str) -> int:
    pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    return 0 if pixels is None else int(pixels.size)
