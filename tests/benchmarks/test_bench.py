"""Each benchmark runs on tiny sizes and says what it should; no time is asserted."""

import contextlib
import math
import shutil
import subprocess

import numpy as np
import pytest
import typer

from benchmarks import data, harness
from benchmarks.__main__ import main
from benchmarks.harness import Options, Row
from stages.core import imaging
from stages.core.errors import PipelineError
from tests.conftest import ROOT, radiography_tree


@pytest.fixture(autouse=True)
def shipped(isolated):
    """Benchmarks start from the shipped params."""
    shutil.copy(ROOT / "params.yaml", isolated)


def test_a_bound_is_of_the_ratio_or_of_a_lone_figure():
    row = Row("x", 10, "s", peer=5, at_most=1.2)
    assert (row.ratio, row.reached) == (2, False)
    assert "NOT reached" in harness.render("x", [row])
    assert Row("x", 10, "s", peer=5, at_least=2).reached
    assert Row("x", 10, "s", at_least=9).reached
    # Without a measurement no bound is met.
    assert not Row("x", math.nan, "s", at_most=60).reached


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


@pytest.fixture
def command(monkeypatch):
    """`python -m benchmarks` in this process."""

    def run(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["benchmarks", *words])
        with contextlib.suppress(SystemExit):
            typer.run(main)

    return run


LONG = ("gpu", "noop", "predict", "scale", "train-step", "validate")
NAMES = ["evaluate", "input", "orientation"]
NAMES += [pytest.param(name, marks=pytest.mark.nightly) for name in LONG]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_its_figures(command, capsys, name):
    command(name, "--quick", "--pairs", "8")
    printed = capsys.readouterr().out
    assert f"\n{name}" in printed
    assert "nan" not in printed


def test_without_a_gpu_its_benchmark_is_one_sentence(command):
    with pytest.raises(PipelineError, match="needs a GPU, and TensorFlow sees none"):
        command("gpu")


def test_several_benchmarks_run_in_processes_of_their_own(command, monkeypatch):
    ran = []

    def run(words):
        ran.append(words[3:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    command("noop", "scale", "--quick", "--pairs", "3")
    assert ran == [[name, "--quick", "--pairs", "3"] for name in ("noop", "scale")]
