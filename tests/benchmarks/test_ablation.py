"""Runs whose every number is known, and what the ablation says of them."""

import re
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import ablation
from benchmarks.ablation import __main__ as command
from benchmarks.ablation.findings import gradient_ratios
from benchmarks.ablation.grid import ARMS, SEEDS, Arm, run_name
from stages.core.errors import PipelineError
from stages.core.params import parse_params
from stages.review.evidence import Evidence
from stages.tools.sweep import Swept
from tests.conftest import with_overrides

IMAGES, EPOCHS, STEPS_PER_EPOCH = 40, 8, 7
PARTS = ["encoder_0", "encoder_1", "middle", "decoder_0", "head_0"]
# Of 1, 2 and 3 levels: a gain in the end, epochs saved at the start.
GAIN = {1: 0.0, 2: 0.02, 3: 0.0}
SAVED = {1: 0, 2: 2, 3: 3}


def evidence(arm: Arm, seed: int, folder) -> Evidence:
    """A run of a known gain, start and gradient."""
    ids = [f"p{i}" for i in range(IMAGES)]
    noise = np.random.default_rng([seed, arm.levels]).normal(0, 0.001, IMAGES)
    dice = 0.85 + 0.002 * np.arange(IMAGES) + GAIN[arm.levels] + noise
    # Three levels: better with one seed, worse with the others.
    dice += {3: {1: 0.004}.get(seed, -0.002)}.get(arm.levels, 0.0)
    splits = folder / "pairs.csv"
    rows = [f"{name},COVID,g{i // 2},validation" for i, name in enumerate(ids)]
    splits.write_text("\n".join(["pair_id,class_name,group,split", *rows, ""]))
    begun = 5 - SAVED[arm.levels]  # the epoch that reaches 0.9
    epochs = np.arange(1, EPOCHS + 1)
    history = pd.DataFrame({"epoch": epochs.astype(float), "loss": 1.0, "dice": 0.5})
    # As the reader has it: a column that not every run has stays text.
    history["monitor_dice"] = [
        str(value) for value in np.where(epochs >= begun, 0.9, 0.1 * epochs)
    ]
    table = [
        (step, head, part, 0.0 if part == "head_0" and head else 1.0 / (head + 1) ** 2)
        for step in range(0, EPOCHS * STEPS_PER_EPOCH, EPOCHS)
        for head in range(arm.levels)
        for part in PARTS
    ]
    columns = ["step", "head", "part", "gradient_norm"]
    return Evidence(
        side=SimpleNamespace(file=lambda _: splits),
        params={},
        plan={},
        metrics={},
        per_image=pd.DataFrame({"pair_id": ids, "class_name": "COVID", "dice": dice}),
        verdict=None,
        history=history,
        gradients=pd.DataFrame(table, columns=columns),
        ingested={"dataset": "made up"},
        export=None,
    )


@pytest.fixture
def done(tmp_path):
    return {
        run_name(arm, seed): evidence(arm, seed, tmp_path)
        for arm in ARMS
        for seed in SEEDS
    }


def test_the_grid_varies_levels_momentum_and_seed_alone(tiny_values):
    runs = ablation.planned({"ingest.limit": 5}, epochs=4)
    assert len({run.name for run in runs}) == len(runs) == 18
    varied = {
        key for key in runs[0].values if len({str(run.values[key]) for run in runs}) > 1
    }
    assert varied == {
        "train.supervision_weights",
        "train.batch_norm_momentum",
        "train.seed",
    }
    for run in runs:
        parse_params(with_overrides(tiny_values, run.values))
    # A seed after the other: what an early end leaves can be compared.
    assert [run.values["train.seed"] for run in runs] == [1] * 6 + [2] * 6 + [3] * 6


def test_known_differences_are_found_and_noise_is_not(done):
    found = ablation.find(done, epochs=EPOCHS)
    assert (found.num_images, found.num_groups) == (IMAGES, IMAGES // 2)
    assert found.num_steps == EPOCHS * STEPS_PER_EPOCH
    by_name = {one.name: one for one in found.contrasts}
    assert len(by_name) == 9  # 3 a momentum, and one for each number of levels
    helps = by_name["2 levels against no supervision, batch norm 0.9"]
    assert helps.mean == pytest.approx(0.02, abs=0.001)
    assert helps.low < helps.mean < helps.high
    assert helps.is_shown
    # Its interval may leave out 0: the seeds disagree all the same.
    mixed = by_name["3 levels against no supervision, batch norm 0.99"]
    assert not mixed.is_shown
    assert {np.sign(v) for v in mixed.by_seed.values()} == {-1, 1}
    same = by_name["batch norm 0.99 against 0.9, 3 levels"]
    assert (same.mean, same.low, same.high, same.is_shown) == (0, 0, 0, False)

    starts = {one.arm: set(one.start.values()) for one in found.results}
    assert starts[Arm(0.9, 1)] == {5 * STEPS_PER_EPOCH}
    assert starts[Arm(0.9, 3)] == {2 * STEPS_PER_EPOCH}
    early = {one.arm: one.early[1] for one in found.results}
    assert early[Arm(0.9, 1)] == pytest.approx(0.2)  # epoch 2 of 8
    assert early[Arm(0.9, 3)] == pytest.approx(0.9)

    ratios = gradient_ratios(found, Arm(0.9, 3), 1)
    assert list(ratios) == ["encoder_0", "encoder_1", "middle"]
    assert ratios["middle"] == (pytest.approx(0.25), pytest.approx(0.25))


def test_the_page_says_it_and_shows_it(done, tmp_path):
    found = ablation.find(done, epochs=EPOCHS)
    outs = [
        ablation.write(found, tmp_path / name, data="set.zip", epochs=EPOCHS)
        for name in ("one", "two")
    ]
    text = outs[0].read_text("utf-8")
    difference = (
        r"2 levels against no supervision, batch norm 0\.9: \+0\.0(19|20)\d Dice"
    )
    assert re.search(difference, text)
    assert "no supervision 35, 2 levels 21, 3 levels 14" in text
    assert "| 3 levels, batch norm 0.99 | 2 | 0.11, 0.11 |" in text
    pictures = sorted(path.name for path in outs[0].parent.glob("*.svg"))
    # Dice for each momentum; gradients for each head of each arm.
    assert len(pictures) == 2 + 2 * (1 + 2 + 3)
    for name in pictures:
        assert f"({name})" in text
        root = ET.parse(outs[0].parent / name).getroot()
        words = [element.text for element in root.iter() if element.text]
        assert "middle" in words or "3 levels" in words
    contents = [
        {path.name: path.read_bytes() for path in out.parent.iterdir()} for out in outs
    ]
    assert contents[0] == contents[1]


def test_what_is_left_of_failed_runs_is_compared(done, tmp_path):
    gone = [run_name(Arm(0.9, 1), seed) for seed in SEEDS]
    gone.append(run_name(Arm(0.99, 2), 3))
    left = {name: run for name, run in done.items() if name not in gone}
    found = ablation.find(left, epochs=EPOCHS)
    by_name = {one.name: one for one in found.contrasts}
    assert "2 levels against no supervision, batch norm 0.9" not in by_name
    partly = by_name["2 levels against no supervision, batch norm 0.99"]
    assert list(partly.by_seed) == [1, 2]
    assert partly.low > 0
    assert not partly.is_shown  # a seed is missing
    page = ablation.write(found, tmp_path / "out", data="x", epochs=EPOCHS)
    assert "| 2 levels, batch norm 0.9 | 0 | - |" in page.read_text("utf-8")
    with pytest.raises(PipelineError, match="nothing to report"):
        ablation.find({}, epochs=EPOCHS)


def test_the_command_reports_what_is_done_and_then_what_failed(
    done, tmp_path, monkeypatch, capsys
):
    asked = {}

    def swept(runs):
        asked["epochs"] = {run.values["train.epochs"] for run in runs}
        name = run_name(Arm(0.9, 1), 3)
        left = {key: run for key, run in done.items() if key != name}
        return Swept(left, {name: "the loss is nan"})

    monkeypatch.setattr(command, "sweep", swept)
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys, "argv", ["ablation", "--epochs", str(EPOCHS), "--out", str(out)]
    )
    with pytest.raises(PipelineError, match=r"1 of 18 runs failed.*bn0\.9-seed3.*nan"):
        command.main()
    assert asked["epochs"] == {EPOCHS}
    assert (out / "ablation.md").is_file()
    assert "2 levels against no supervision" in capsys.readouterr().out
