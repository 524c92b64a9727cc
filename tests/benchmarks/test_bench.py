"""Each benchmark runs on tiny sizes and says what it should; no time is asserted."""

import contextlib
import importlib
import math
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import typer

from benchmarks import data, harness, processes
from benchmarks.__main__ import main
from benchmarks.benches import robustness
from benchmarks.harness import Options, Row, Target
from stages.core import imaging
from stages.core.errors import PipelineError
from stages.core.params import load_params
from tests.conftest import ROOT, radiography_tree
from tests.inference.onnx_models import dark_is_lung

QUICK = Options(quick=True)


@pytest.fixture(autouse=True)
def shipped(isolated):
    """Benchmarks start from the shipped params."""
    shutil.copy(ROOT / "params.yaml", isolated)


def measured(name, **given):
    rows = harness.load(name).bench(Options(quick=True, **given))
    assert rows
    for row in rows:
        assert row.name
        assert math.isfinite(row.figure), row
    text = harness.render(name, rows)
    assert text.startswith(name)
    return rows


@pytest.mark.parametrize("name", harness.names())
def test_every_benchmark_describes_itself(name):
    module = harness.load(name)
    assert isinstance(module.LONG, bool)
    assert set(module.OPTIONS) < set(vars(Options()))
    assert module.__doc__.splitlines()[0].endswith(".")


def test_a_target_bounds_the_ratio_or_the_figure():
    row = Row("x", 10, "s", 5, "limit", ratio=2, target=Target(1.2, at_most=True))
    assert row.reached is False
    assert "NOT reached" in harness.render("x", [row])
    assert Row("x", 10, "s", ratio=2, target=Target(2)).reached
    assert Row("x", 10, "s", ratio=2, target=Target(9, of="figure")).reached
    # Without a measurement no target is reached.
    lost = Row("x", math.nan, "s", target=Target(60, of="figure", at_most=True))
    assert lost.reached is False
    assert Row("x", 1, "s").reached is None


def test_functions_are_timed_in_turns_after_a_warm_up():
    calls = []
    took = harness.alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2
    )
    assert calls == ["a", "b"] * 3
    assert set(took) == {"a", "b"}
    assert all(value > 0 for value in took.values())


def test_variations_have_pixels_of_their_own_and_masks_that_fit():
    base = data.phantoms(2, side=40)
    pairs = list(data.varied(base, 5))
    assert len({pair.image for pair in pairs}) == len({p.pair_id for p in pairs}) == 5
    assert pairs == list(data.varied(base, 5))
    for pair in pairs:
        assert imaging.decode_image(pair.image).shape == (40, 40)
        mask = imaging.decode(pair.mask)
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.any()


def test_given_data_is_what_is_measured(tmp_path):
    top = radiography_tree(tmp_path, {"COVID": 3})
    pairs = data.encoded(Options(data=top), 2)
    assert [pair.pair_id for pair in pairs] == ["COVID-1", "COVID-2"]
    assert pairs[0].image == (top / "COVID/images/COVID-1.png").read_bytes()
    (top / "COVID/masks/COVID-1.png").unlink()
    assert data.encoded(Options(data=top), 1)[0].pair_id == "COVID-2"


@pytest.mark.parametrize("one", robustness.PERTURBATIONS, ids=lambda one: one.name)
def test_perturbations_change_the_picture_and_move_the_mask_with_it(one):
    mask = np.zeros((64, 64), np.uint8)
    cv2.rectangle(mask, (16, 12), (30, 50), 1, -1)
    image = np.where(mask > 0, 60, 190).astype(np.uint8)
    same, kept = robustness.perturbed(
        image, mask > 0, one, 0.0, np.random.default_rng(0)
    )
    assert np.array_equal(same, image)
    assert np.array_equal(kept, mask > 0)
    changed, moved = robustness.perturbed(
        image, mask > 0, one, 0.5, np.random.default_rng(0)
    )
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)
    if one.place is None:
        assert np.array_equal(moved, kept)
        return
    assert not np.array_equal(moved, kept)
    dark = (changed > 20) & (changed < 110)
    assert np.count_nonzero(dark ^ moved) < 0.2 * np.count_nonzero(moved)


def test_robustness_with_a_model_of_known_answers(tmp_path):
    top = radiography_tree(tmp_path, {"COVID": 2})
    model = dark_is_lung(tmp_path / "unet.onnx", 32)
    rows = measured("robustness", data=top, model=model, out=tmp_path / "out")
    assert {row.peer for row in rows} == {rows[0].peer}
    assert rows[0].peer > 0.9
    svg = (tmp_path / "out" / "robustness.svg").read_text()
    assert all(one.name in svg for one in robustness.PERTURBATIONS)


TRAINING = [
    pytest.param(n, marks=pytest.mark.nightly) for n in ("predict", "train-step")
]


@pytest.mark.parametrize("name", ["evaluate", "input", *TRAINING])
def test_benches_in_this_process(name):
    for row in measured(name):
        assert row.peer > 0
        assert row.ratio > 0
        assert row.peer_name


@pytest.fixture
def stages_here(monkeypatch):
    """Stages run in this process, where their libraries are imported already."""

    def stage(name, folder):
        module = importlib.import_module(f"stages.{name}")
        with contextlib.chdir(folder):
            params = load_params()
            section = params.validate_ if name == "validate" else params.ingest
            getattr(module, name)(section)
        return processes.Measured(0.5, 2.0, 300_000_000)

    monkeypatch.setattr(processes, "stage", stage)


def test_validate_beside_reading(stages_here):
    speed, memory = measured("validate")
    assert speed.notes["pairs"] == 12
    assert speed.figure == pytest.approx(12 / 5)
    assert memory.reached


@pytest.mark.nightly
def test_scale_fits_a_line_through_real_stages(stages_here):
    rows = measured("scale", sizes=(4, 8))
    assert [row.name for row in rows] == [
        "ingest, exponent",
        "ingest, most memory at 8 pairs",
    ]
    assert rows[0].figure == 0
    assert rows[1].figure == 300


@pytest.mark.nightly
def test_nothing_to_do_is_nothing_done():
    (row,) = measured("noop", pairs=2)
    assert row.ratio == pytest.approx(row.figure / row.peer)


@pytest.fixture
def command(monkeypatch):
    """`python -m benchmarks` in this process."""

    def run(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["benchmarks", *words])
        with contextlib.suppress(SystemExit):
            typer.run(main)

    return run


def test_the_command_prints_a_table(command, capsys):
    command("evaluate", "--quick", "--pairs", "1")
    assert "Dice alone in NumPy" in capsys.readouterr().out


def test_options_without_use_are_refused(command):
    with pytest.raises(PipelineError, match="--sizes is used by none of evaluate"):
        command("evaluate", "--sizes", "2")
    with pytest.raises(PipelineError, match=r"no .*speed"):
        command("speed")


def test_several_benchmarks_run_in_processes_of_their_own(command, monkeypatch):
    ran = []

    def run(words):
        ran.append(words[3:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    command("noop", "scale", "--quick", "--pairs", "3", "--sizes", "4", "--sizes", "8")
    assert ran == [
        ["noop", "--quick", "--pairs", "3"],
        ["scale", "--quick", "--sizes", "4", "--sizes", "8"],
    ]
