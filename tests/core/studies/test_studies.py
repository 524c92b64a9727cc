"""Does each study go through the stages, on a small tree of its data set's shape?"""

import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stages.core import paths, studies
from stages.core.params import Params, parse_params, with_values
from stages.datasets import layouts
from stages.export import export
from stages.nn.inference import load_model
from tests.conftest import ROOT, run_to_verdict
from tests.trees import SIDE, write_covid_qu_ex, write_lgg, write_radiography

# What a study says stays, but for where the data are and how large everything is.
SMALL = {
    "ingest.source": "folder",
    "ingest.folder": "tree",
    "validate.min_pairs": 2,
    "train.initial_weights": ".",
    "train.image_size": 32,
    "train.filters": [4, 4, 8],
    "train.epochs": 1,
    "train.batch_size": 4,
    "train.gradient_log_interval": 0,
    "evaluate.bootstrap_resamples": 100,
    "gate.min": {"dice.mean": 0.0},
    "gate.max": {},
    "export.parity_images": 3,
}


# For each study: its tree, and what else is smaller there.
TREES: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "article": (
        write_radiography,
        {
            "validate.image_mask_shapes": [["40x40", "32x32"]],
            "split.folds": 0,
            "split.validation_fraction": 0.5,
            "split.seed": 1,
        },
    ),
    "radiography": (
        write_radiography,
        {"validate.image_mask_shapes": [["40x40", "32x32"]]},
    ),
    "covid_qu_ex": (
        write_covid_qu_ex,
        {"validate.image_mask_shapes": [["32x32", "32x32"]]},
    ),
    "covid_qu_ex_infection": (
        write_covid_qu_ex,
        {
            "validate.image_mask_shapes": [["32x32", "32x32"]],
            "split.validation_fraction": 0.5,
        },
    ),
    "lungs": (
        write_covid_qu_ex,
        {"validate.image_mask_shapes": [["32x32", "32x32"]]},
    ),
    "lgg_mri": (
        write_lgg,
        {
            "validate.image_mask_shapes": [["32x32", "32x32"]],
            "split.validation_fraction": 0.5,
        },
    ),
}


def params_of(name: str, shipped: dict[str, Any], **small: Any) -> Params:
    return parse_params(
        with_values(with_values(shipped, studies.load(name).params), small)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, shipped_values):
    """Takes a study from its tree to the gate, once; the folder it ran in."""
    done: dict[str, Path] = {}

    def run_study(name: str) -> Path:
        if name not in done:
            write, sizes = TREES[name]
            place = tmp_path_factory.mktemp(name)
            write(place / "tree")
            params = params_of(name, shipped_values, **SMALL, **sizes)
            with chdir(place):
                run_to_verdict(params)
            done[name] = place
        return done[name]

    return run_study


def read(place: Path, path: Path) -> Any:
    return json.loads((place / path).read_text("utf-8"))


@pytest.mark.parametrize("name", studies.names())
class TestEach:
    def test_sets_what_there_is_and_nothing_else(self, name, shipped_values):
        params = params_of(name, shipped_values)
        assert studies.load(name).about
        assert params.ingest.source == ["kaggle"]
        # Its version of its own data set, whatever params.yaml pins.
        page = layouts.load(params.ingest.layout).ABOUT.page
        assert page.endswith(f"/{params.ingest.kaggle.dataset}")
        assert "ingest.kaggle.version" in studies.load(name).params
        assert "ingest.target" in studies.load(name).params

    def test_goes_through_to_the_verdict(self, name, run):
        place = run(name)
        assert read(place, paths.VERDICT)["passed"]
        metrics = read(place, paths.METRICS)
        assert (
            metrics["num_images"] == read(place, paths.SPLIT_SUMMARY)["num_validation"]
        )
        assert list((place / paths.OVERLAYS).glob("*.png"))
        assert read(place, paths.INGESTED_SUMMARY)["dataset"].lower() in (
            "covid-19 radiography database",
            "covid-qu-ex",
            "lgg mri segmentation",
        )


def test_covid_qu_ex_is_scored_on_its_own_test_side(run):
    place = run("covid_qu_ex")
    assert read(place, paths.INGESTED_SUMMARY)["target"] == "lung"
    table = pd.read_csv(place / paths.SPLIT_PAIRS)
    held_out = set(table["pair_id"][table["split"] == "validation"])
    assert held_out == {f"film ({number})" for number in (9, 10, 11, 12)}
    facts = read(place, paths.SPLIT_SUMMARY)
    assert [row["pair_id"] for row in facts["left_out"]] == ["copy"]
    assert "copy" not in set(table["pair_id"])


def test_an_infection_is_measured_as_a_share_of_the_lungs(run):
    place = run("covid_qu_ex_infection")
    table = pd.read_csv(place / paths.PER_IMAGE)
    is_covid = table["class_name"] == "COVID-19"
    assert table.loc[~is_covid, "severity_true"].eq(0).all()
    assert table.loc[is_covid, "severity_true"].between(0.2, 0.8).all()
    metrics = read(place, paths.METRICS)
    error = (table["severity_true"] - table["severity_pred"]).abs()[is_covid].mean()
    assert metrics["severity_error"]["mean"] == pytest.approx(error, abs=1e-5)
    assert metrics["num_without_foreground"] == (~is_covid).sum()


class TestLgg:
    """Three channels and empty masks, through every stage."""

    def test_empty_masks_are_accepted(self, run):
        place = run("lgg_mri")
        facts = pq.read_table(place / paths.QUALITY_PAIRS).to_pandas()
        assert facts["accepted"].all()
        assert (facts["foreground_fraction"] == 0).sum() == 18
        assert set(facts["image_channels"]) == {3}

    def test_patients_stay_whole(self, run):
        table = pd.read_csv(run("lgg_mri") / paths.SPLIT_PAIRS)
        patients = table["pair_id"].str.rsplit("_", n=1).str[0]
        assert patients.nunique() == table["group"].nunique() == 6
        assert (table.groupby(patients)["split"].nunique() == 1).all()

    def test_the_network_sees_three_channels_that_differ(self, run):
        place = run("lgg_mri")
        model = load_model(place / paths.MODEL)
        assert model.input_shape == (None, SIDE, SIDE, 3)
        assert model.name == "attention_unet"
        generator = np.random.default_rng(0)
        image = generator.random((1, SIDE, SIDE, 3), np.float32)
        first = model(image, training=False)[0].numpy()
        other = model(image[..., ::-1], training=False)[0].numpy()
        assert not np.allclose(first, other)

    def test_a_slice_without_tumour_counts_as_a_false_alarm_or_not(self, run):
        place = run("lgg_mri")
        table = pd.read_csv(place / paths.PER_IMAGE)
        predicted = pq.read_table(place / paths.PREDICTIONS).to_pandas()
        found = dict(zip(predicted["pair_id"], predicted["mask"], strict=True))
        facts = pq.read_table(place / paths.QUALITY_PAIRS).to_pandas()
        is_there = dict(
            zip(facts["pair_id"], facts["foreground_fraction"] > 0, strict=True)
        )
        for row in table.itertuples():
            mask = cv2.imdecode(
                np.frombuffer(found[row.pair_id], np.uint8), cv2.IMREAD_UNCHANGED
            )
            if is_there[row.pair_id]:
                assert row.dice >= 0
            elif mask.any():
                assert row.dice == row.iou == 0
            else:
                assert np.isnan(row.dice)
                assert np.isnan(row.iou)
            assert np.isnan(row.hd95_px) == (not (is_there[row.pair_id] and mask.any()))
        metrics = read(place, paths.METRICS)
        with_tumour = table[table["pair_id"].map(is_there)]
        assert metrics["num_undefined"] == with_tumour["hd95_px"].isna().sum()
        assert metrics["dice"]["mean"] == pytest.approx(with_tumour["dice"].mean())
        assert metrics["num_without_foreground"] == len(table) - len(with_tumour) >= 6
        alarms = table["false_alarms"].dropna()
        assert metrics["false_alarms"]["mean"] == alarms.mean()

    def test_every_format_answers_as_keras_does(self, run, shipped_values):
        place = run("lgg_mri")
        params = params_of("lgg_mri", shipped_values, **SMALL, **TREES["lgg_mri"][1])
        shutil.copy(ROOT / "requirements.lock", place)
        with chdir(place):
            export(params.export, train=params.train, evaluate=params.evaluate)
        summary = read(place, paths.EXPORT_SUMMARY)
        assert summary["image_channels"] == 3
        assert set(summary["formats"]) == {"onnx", "saved_model", "litert"}
        for facts in summary["formats"].values():
            assert 0 <= facts["max_probability_difference"] <= 0.001
            assert 0 <= facts["max_dice_difference"] <= 0.001  # both empty: no change
        card = (place / paths.EXPORT / "model_card.md").read_text("utf-8")
        assert "colour, blue first" in card
        assert "tumour" in card
        assert "chest" not in card
