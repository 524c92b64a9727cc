"""Tiny data, tiny params, and a working directory of one's own for every test."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import cv2
import numpy as np
import pandas as pd
import pytest
from absl import logging as absl_logging
from ruamel.yaml import YAML

from stages.core import files, paths
from stages.core.params import Params, parse_params
from stages.core.params import with_values as with_overrides
from stages.datasets.pairs import Pair, write_shards

ROOT = Path(__file__).resolve().parent.parent

# TensorFlow's logger closes the stream it was made with when logging is configured
# anew, as Prefect does at its import: that stream would be pytest's own capture.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


# A shell that starts a job in the background has it ignore Ctrl-C, and so all that it
# starts: nothing could then be shown to be interrupted.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))),
    None,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--nightly`."""
    parser.addoption("--nightly", action="store_true", help="the long tests, too")


def pytest_report_header() -> str:
    """Says in which browser pages are tested, or that they are not."""
    return f"browser: {CHROMIUM or 'no Chromium here, its tests are deselected'}"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Slow files first, so that no worker is left with one when the rest is done.

    Of the files that use `finished`, one comes first: the others would wait for it.
    Deselects what is for the night, and what needs a browser where there is none,
    unless one is required.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    waiting = {i.path for i in items if "finished" in getattr(i, "fixturenames", ())}
    first = ROOT / "tests" / "test_flow.py"
    items.sort(
        key=lambda item: (
            item.path != first,
            item.path not in slow - waiting,
            item.path not in slow,
        )
    )
    without = set() if config.getoption("--nightly") else {"nightly"}
    if not CHROMIUM and os.environ.get("BROWSER_TESTS") != "required":
        without.add("browser")
    left_out = [i for i in items if without & {mark.name for mark in i.iter_markers()}]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; it asks the network nothing of its own."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "a Chromium is required to test pages; install chromium"
    quiet = (
        *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        "--disable-sync",
    )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(quiet)
        )
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Nobody writes to the real `data/` by accident."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shipped_values():
    """The shipped `params.yaml`, as values."""
    return YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))


TINY = {
    "train.initial_weights": ".",  # holds no weights
    "ingest.phantom.pairs": 12,
    "ingest.phantom.image_size": 40,
    "ingest.phantom.mask_size": 32,
    "ingest.shard_pairs": 4,
    "validate.image_mask_shapes": [["40x40", "32x32"]],
    "validate.min_pairs": 2,
    "split.validation_fraction": 0.34,
    "split.seed": 2,  # holds out one pair of each class
    "train.image_size": 32,
    "train.filters": [4, 8, 8],
    "train.epochs": 1,
    "train.low_resolution_fraction": 0.0,
    "train.batch_size": 4,
    "train.gradient_log_interval": 0,  # its graph takes half of a tiny training's time
    "evaluate.bootstrap_resamples": 100,
    "evaluate.overlays_worst": 2,
    "evaluate.overlays_best": 1,
    "evaluate.overlays_median": 1,
    "gate.min": {"dice.mean": 0.0},
    "gate.max": {},
    "export.parity_images": 2,
}


@pytest.fixture
def tiny_values(shipped_values):
    """The shipped params shrunk: 12 phantoms, 32 px, 1 epoch, 4 filters."""
    return with_overrides(shipped_values, TINY)


@pytest.fixture
def tiny_params(tiny_values):
    """Builds tiny params: `tiny_params(**{"split.folds": 3})`."""

    def build(**overrides: Any) -> Params:
        return parse_params(with_overrides(tiny_values, overrides))

    return build


@pytest.fixture
def section(tiny_params):
    """Builds one section of tiny params: `section("split", folds=3)`."""

    def build(name: str, **values: Any) -> Any:
        params = tiny_params(**{f"{name}.{key}": values[key] for key in values})
        return params.validate_ if name == "validate" else getattr(params, name)

    return build


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A repository in which the plan has run, on 36 phantoms; only to be copied.

    Made once for all workers of `make test`: whoever comes second waits for the first.
    """
    from tests.faults import clones

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    root = folder / "finished" / "plan"
    with (folder / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.parent.exists():
            clones.prepare(root, {"ingest.phantom.pairs": 36})
        # What failed in another worker is not to be found half-made here.
        assert (root / "data" / "export.json").is_file(), "no finished run to copy"
    return root


def run_to_verdict(params: Params) -> None:
    """All stages but export, in this process and its folder."""
    from stages.evaluate import evaluate
    from stages.gate import gate
    from stages.ingest import ingest
    from stages.split import split
    from stages.train import train
    from stages.validate import validate

    ingest(params.ingest)
    validate(params.validate_)
    split(params.split)
    train(params.train)
    evaluate(params.evaluate)
    gate(params.gate)


def lungs(
    seed: int = 0, *, image_size: int = 40, mask_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Two dark ellipses on a bright, noisy field, and their exact mask.

    Returns:
        image (image_size, image_size) uint8 and mask (mask_size, mask_size) uint8,
        0 or 255.
    """
    generator = np.random.default_rng(seed)
    shift = generator.uniform(-0.04, 0.04, size=2)
    tilt = generator.uniform(5, 15)

    def draw(size: int) -> np.ndarray:
        mask = np.zeros((size, size), np.uint8)
        for side, angle in ((0.3, tilt), (0.7, -tilt)):
            centre = (int(size * (side + shift[0])), int(size * (0.5 + shift[1])))
            axes = (int(size * 0.15), int(size * 0.34))
            cv2.ellipse(mask, centre, axes, angle, 0, 360, 255, -1)
        return mask

    image = 190.0 - 0.5 * cv2.GaussianBlur(draw(image_size), (0, 0), 1)
    image += generator.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), draw(mask_size)


def png(pixels: np.ndarray) -> bytes:
    """Encodes pixels as PNG."""
    ok, buffer = cv2.imencode(".png", pixels)
    assert ok
    return buffer.tobytes()


def ingested_pair(
    name: str, image: np.ndarray, mask: np.ndarray, /, **changes: Any
) -> Pair:
    """A pair of class COVID as ingest stores it, but for the changes."""
    pair = Pair(
        pair_id=name,
        class_name="COVID",
        image_path=f"{name}.png",
        mask_path=f"{name}.png",
        image=png(image),
        mask=png(mask),
    )
    return replace(pair, **changes)


def write_data(pairs: list[Pair], held_out: Collection[str]) -> pd.DataFrame:
    """Writes what ingest and split write; returns the table of split."""
    write_shards(pairs, paths.INGESTED, shard_pairs=3)
    rows = [
        {
            "pair_id": pair.pair_id,
            "class_name": pair.class_name,
            "group": pair.group or pair.pair_id,
            "split": "validation" if pair.pair_id in held_out else "train",
        }
        for pair in pairs
    ]
    files.write_csv(paths.SPLIT_PAIRS, table := pd.DataFrame(rows))
    return table


def run_python(
    *words: str | Path, cwd: Path = Path(), preexec_fn: Any = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python` with words such as `-m stages.cli`, in a bare environment."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **environment},
        preexec_fn=preexec_fn,
        capture_output=True,
        text=True,
    )


def radiography_tree(
    root: Path,
    classes: dict[str, int] | None = None,
    *,
    image_size: int = 40,
    mask_size: int = 32,
) -> Path:
    """Writes a small COVID-19 Radiography Database tree; returns its top folder."""
    top = root / "COVID-19_Radiography_Dataset"
    seed = 0
    for class_name, count in (classes or {"COVID": 6, "Normal": 6}).items():
        for kind in ("images", "masks"):
            (top / class_name / kind).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            seed += 1
            image, mask = lungs(seed, image_size=image_size, mask_size=mask_size)
            name = f"{class_name}-{number}.png"
            (top / class_name / "images" / name).write_bytes(png(image))
            colour = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)
            (top / class_name / "masks" / name).write_bytes(png(colour))
    return top


def two_sites(folder: Path) -> Path:
    """Writes two hospitals: `north` is a folder, `south` a zip of films of 48 x 48."""
    radiography_tree(folder / "north").rename(folder / "top")
    (folder / "north").rmdir()
    (folder / "top").rename(folder / "north")
    with zipfile.ZipFile(folder / "south.zip", "w") as archive:
        for number in range(1, 7):
            pixels = lungs(40 + number, image_size=48, mask_size=48)
            for kind, side in zip(("images", "masks"), pixels, strict=True):
                archive.writestr(f"ward/{kind}/film {number}.png", png(side))
    return folder
