"""Does each study go through the stages, on a small tree of its data set's shape?"""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.core import paths, studies
from stages.core.params import Params, parse_params, with_values
from stages.datasets.sources import kaggle
from stages.export import export
from stages.nn.inference import load_model
from tests.conftest import ROOT, run_to_verdict
from tests.trees import SIDE, WRITERS

# What a study says stays, but for where the data are and how large everything is.
SMALL = {
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


BOTH_32 = {"validate.image_mask_shapes": [["32x32", "32x32"]]}
BOTH_SIZES = {"validate.image_mask_shapes": [["40x40", "32x32"]]}
HALF = {"split.folds": 0, "split.validation_fraction": 0.5}
# For each study: pairs in the tree of its layout, and what else is smaller there.
STUDIES: dict[str, tuple[int, dict[str, Any]]] = {
    "article": (5, BOTH_SIZES | HALF | {"split.seed": 1}),
    "radiography": (10, BOTH_SIZES),
    "covid_qu_ex": (13, BOTH_32),
    "covid_qu_ex_infection": (13, BOTH_32 | HALF),
    "lungs": (13, BOTH_32),
    "lgg_mri": (24, BOTH_32 | HALF),
}


def params_of(name: str, shipped: dict[str, Any], **small: Any) -> Params:
    return parse_params(
        with_values(with_values(shipped, studies.load(name).params), small)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, shipped_values):
    """Takes a study from its archive to the gate, once; the folder it ran in."""
    done: dict[str, Path] = {}

    def run_study(name: str) -> Path:
        if name not in done:
            place = tmp_path_factory.mktemp(name)
            params = params_of(name, shipped_values, **SMALL, **STUDIES[name][1])
            WRITERS[params.ingest.layout](place / "tree")
            archive = shutil.make_archive(str(place / "tree"), "zip", place / "tree")
            with chdir(place), pytest.MonkeyPatch.context() as patch:
                patch.setattr(kaggle, "fetch", lambda _: Path(archive))
                run_to_verdict(params)
            done[name] = place
        return done[name]

    return run_study


def read(place: Path, path: Path) -> Any:
    return json.loads((place / path).read_text("utf-8"))


@pytest.mark.parametrize("name", studies.names())
def test_each_goes_from_its_archive_to_the_verdict(name, run):
    study = studies.load(name)
    assert study.about
    # Its version of its own data set, whatever params.yaml pins.
    own = {"ingest.kaggle.dataset", "ingest.kaggle.version", "ingest.target"}
    assert own <= study.params.keys()
    place = run(name)
    facts = read(place, paths.INGESTED_SUMMARY)
    assert (facts["source"], facts["num_pairs"]) == ("kaggle", STUDIES[name][0])
    assert facts["num_images_without_mask"] == facts["num_masks_without_image"] == 0
    assert facts["version"] == study.params["ingest.kaggle.version"]
    page = f"https://www.kaggle.com/datasets/{study.params['ingest.kaggle.dataset']}"
    assert facts["page"] == page
    assert facts["citation"]  # only the layout's own data set has one
    assert read(place, paths.VERDICT)["passed"]
    num_held_out = read(place, paths.SPLIT_SUMMARY)["num_validation"]
    assert read(place, paths.METRICS)["num_images"] == num_held_out
    assert list((place / paths.OVERLAYS).glob("*.png"))


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

    def test_the_network_sees_three_channels_that_differ(self, run):
        model = load_model(run("lgg_mri") / paths.MODEL)
        assert model.input_shape == (None, SIDE, SIDE, 3)
        assert model.name == "attention_unet"
        generator = np.random.default_rng(0)
        image = generator.random((1, SIDE, SIDE, 3), np.float32)
        first = model(image, training=False)[0].numpy()
        other = model(image[..., ::-1], training=False)[0].numpy()
        assert not np.allclose(first, other)

    def test_every_format_answers_as_keras_does(self, run, shipped_values):
        place = run("lgg_mri")
        params = params_of("lgg_mri", shipped_values, **SMALL, **STUDIES["lgg_mri"][1])
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
