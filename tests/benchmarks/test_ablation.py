"""The ablation's grid, and its table on runs whose every number is known."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import ablation
from benchmarks.ablation import MOMENTA, SEEDS, WEIGHTS, run_name
from stages.core.errors import PipelineError
from stages.core.params import parse_params
from stages.tools.sweep import Swept
from tests.conftest import with_overrides

IMAGES = 40
GAIN = {1: 0.0, 2: 0.02, 3: 0.0}


def result(levels: int, seed: int) -> SimpleNamespace:
    ids = [f"p{i}" for i in range(IMAGES)]
    noise = np.random.default_rng([seed, levels]).normal(0, 0.001, IMAGES)
    dice = 0.85 + 0.002 * np.arange(IMAGES) + GAIN[levels] + noise
    return SimpleNamespace(
        per_image=pd.DataFrame({"pair_id": ids, "dice": dice}),
        splits=pd.DataFrame({"pair_id": ids, "group": [i // 2 for i in range(IMAGES)]}),
    )


@pytest.fixture
def done():
    return {
        run_name(levels, momentum, seed): result(levels, seed)
        for levels, momentum, seed in product(WEIGHTS, MOMENTA, SEEDS)
    }


def test_the_grid_varies_levels_momentum_and_seed_alone(tiny_values):
    runs = ablation.planned({"ingest.limit": 5}, epochs=4)
    assert len({run.name for run in runs}) == len(runs) == 18
    varied = {
        key for key in runs[0].values if len({str(run.values[key]) for run in runs}) > 1
    }
    assert varied == {
        "train.supervision_weights", "train.batch_norm_momentum", "train.seed",
    }  # fmt: skip
    for run in runs:
        parse_params(with_overrides(tiny_values, run.values))
    assert [run.values["train.seed"] for run in runs] == [1] * 6 + [2] * 6 + [3] * 6


def cells(text: str, levels: int, momentum: float) -> list[str]:
    """A row's cells after the two that name it."""
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    (row,) = [row[2:] for row in rows if row[:2] == [str(levels), str(momentum)]]
    return row


def test_the_table_compares_with_one_level(done):
    text = ablation.table(done)
    mean, by_seed, difference = cells(text, 2, 0.9)
    assert float(mean) == pytest.approx(0.909, abs=0.001)
    assert len(by_seed.split(", ")) == 3
    assert difference.startswith(("+0.019", "+0.020"))
    assert cells(text, 1, 0.9)[2] == ""


def test_unfinished_runs_leave_the_others(done, tmp_path, monkeypatch, capsys):
    for seed in SEEDS:
        del done[run_name(1, 0.9, seed)]
    del done[run_name(2, 0.99, 3)]
    monkeypatch.setattr(ablation, "sweep", lambda runs: Swept(done, {"x": "loss nan"}))
    with pytest.raises(PipelineError, match="loss nan"):
        ablation.main(out=tmp_path)
    text = (tmp_path / "ablation.md").read_text("utf-8")
    assert text == capsys.readouterr().out
    assert cells(text, 1, 0.9)[0] == "-"
    assert cells(text, 2, 0.9)[2] == "-"
    assert cells(text, 2, 0.99)[2].startswith("+0.0")
