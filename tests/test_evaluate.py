import json
import math
from dataclasses import replace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.imaging import decode_mask
from stages.datasets.pairs import read_shard, shard_paths, write_shards
from stages.evaluate import evaluate
from stages.scoring.metrics import Masks, dice
from tests.conftest import ingested_pair, lungs, png, write_data

SIZE = 32


def brightness_model(shift: int = 0) -> keras.Model:
    """Finds as lung what is darker than mid grey, so many pixels to one side."""
    image = keras.Input((SIZE, SIZE, 1))
    level = keras.layers.Conv2D(1, (1, 1 + 2 * shift), padding="same", name="head_0")
    model = keras.Model(image, [level(image)])
    kernel = np.zeros((1, 1 + 2 * shift, 1, 1))
    kernel[0, 0] = -100
    level.set_weights([kernel, np.full(1, 50.0)])
    return model


@pytest.fixture
def run(section):
    """Evaluates that model with changed params."""
    paths.MODEL.parent.mkdir(parents=True)
    brightness_model().save(paths.MODEL)
    return lambda **values: evaluate(section("evaluate", **values))


@pytest.fixture
def scene(run):
    """Four held-out pairs: two easy, one with an empty truth, one all missed."""
    white = np.full((SIZE, SIZE), 255, np.uint8)
    found = {
        "empty": (white, np.zeros((SIZE, SIZE), np.uint8)),
        "missed": (white, lungs(3)[1]),
        "train": (white, lungs(3)[1]),
    }
    for seed in (1, 2):
        mask = lungs(seed, mask_size=64)[1]
        grey = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        found[f"easy {seed}"] = (255 - grey, mask)
    pairs = [ingested_pair(name, *found[name]) for name in sorted(found)]
    write_data(pairs, held_out=found.keys() - {"train"})


def test_scores_every_held_out_pair_at_its_masks_own_size(scene, run):
    metrics = run()
    written = json.loads(paths.METRICS.read_text())
    table = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")
    assert list(table.columns) == [
        *("class_name", "dice", "iou", "hd95_px", "assd_px", "false_alarms")
    ]
    assert list(table.index) == ["easy 1", "easy 2", "empty", "missed"]
    assert table.loc["easy 1", "dice"] > 0.97
    assert table.loc["missed", "dice"] == 0
    assert math.isnan(table.loc["missed", "hd95_px"])
    assert math.isnan(table.loc["empty", "dice"])

    defined = table["dice"].dropna()
    assert written["dice"]["mean"] == pytest.approx(defined.mean(), abs=1e-6)
    assert written["dice"]["min"] == 0
    assert written["num_images"] == 4
    # The missed one has no surface distance; the empty one is no false alarm.
    assert written["num_undefined"] == 1
    assert written["false_alarms"]["mean"] == 0
    assert written["num_without_foreground"] == 1
    assert written["by_class"]["COVID"]["dice"]["mean"] == written["dice"]["mean"]
    assert metrics["dice"]["ci_low"] <= metrics["dice"]["mean"]

    predicted = pd.read_parquet(paths.PREDICTIONS).set_index("pair_id")["mask"]
    mask_pred = decode_mask(predicted["easy 1"])
    assert mask_pred.shape == (64, 64)
    mask_true = lungs(1, mask_size=64)[1] > 0
    found = dice(Masks(mask_true=mask_true, mask_pred=mask_pred))
    assert found == pytest.approx(table.loc["easy 1", "dice"], abs=1e-6)


def test_images_with_a_pixel_spacing_have_millimetres(scene, run):
    """The spacing is of the image, which is half as large as its mask here."""
    before = run()
    pairs = [
        replace(pair, spacing=(4.0, 6.0)) if pair.pair_id != "easy 2" else pair
        for shard in shard_paths()
        for pair in read_shard(shard)
    ]
    write_shards(pairs, paths.INGESTED, shard_pairs=2)
    metrics = run()
    table = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")
    pixels = (lungs(1, mask_size=64)[1] > 0).sum()
    assert table.loc["easy 1", "area_true_cm2"] == pixels * 2 * 3 / 100
    easy = table.loc["easy 1"]
    assert 2 <= easy["assd_mm"] / easy["assd_px"] <= 3.0001
    assert metrics.pop("hd95_mm") == {"mean": pytest.approx(easy["hd95_mm"], abs=1e-6)}
    assert metrics.pop("assd_mm") == {"mean": pytest.approx(easy["assd_mm"], abs=1e-6)}
    np.testing.assert_equal(metrics, before)  # NaN equals NaN here
    millimetres = ["hd95_mm", "assd_mm", "area_true_cm2", "area_pred_cm2"]
    expected = [*millimetres[:2], "false_alarms", *millimetres[2:]]
    assert list(table.columns)[5:] == expected
    assert table.loc["easy 2", millimetres].isna().all()


def test_a_site_without_training_pairs_is_apart(scene, run):
    whole = run()
    table = pd.read_csv(paths.SPLIT_PAIRS)
    is_north = table["pair_id"].isin(["easy 1", "train"])
    table["site"] = is_north.map({True: "north", False: "south"})
    table["class_name"] = is_north.map({True: "COVID", False: "ward"})
    table.to_csv(paths.SPLIT_PAIRS, index=False)
    metrics = run()
    per_image = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")
    assert dict(per_image["site"]) == {"easy 1": "north"} | dict.fromkeys(
        ("easy 2", "empty", "missed"), "south"
    )
    assert list(per_image.index[per_image["is_headline"]]) == ["easy 1"]
    easy = per_image.loc["easy 1", "dice"]
    assert metrics["num_images"] == 1
    assert metrics["dice"]["mean"] == pytest.approx(easy, abs=1e-6)
    assert metrics["by_site"]["north"]["dice"]["mean"] == metrics["dice"]["mean"]
    assert list(metrics["by_class"]) == ["COVID"]
    south = metrics["by_site"]["south"]
    assert south["dice"].keys() >= {"mean", "p05", "ci_low", "ci_high"}
    assert south["dice"]["mean"] < whole["dice"]["mean"]
    assert (south["num_images"], south["num_undefined"]) == (3, 1)
    curve = pd.read_csv(paths.THRESHOLD_CURVE).set_index("threshold")["dice"]
    assert curve[0.5] == pytest.approx(easy, abs=1e-6)


def test_a_lesions_films_with_and_without_it_are_scored_apart(run):
    """Dice where there is something to find; elsewhere false alarms alone."""
    white = np.full((SIZE, SIZE), 255, np.uint8)
    whole, half, quarter, none = (np.zeros((SIZE, SIZE), np.uint8) for _ in range(4))
    whole[:] = half[:, : SIZE // 2] = quarter[: SIZE // 2, : SIZE // 2] = 255
    found = {  # image (what is dark is found), mask, region
        "exact": (255 - half, half, whole),
        "half of it": (255 - quarter, half, whole),
        "alarm": (255 - quarter, none, whole),
        "quiet": (white, none, half),
    }
    pairs = [
        ingested_pair(
            name,
            image,
            mask,
            class_name="A" if name == "half of it" else "B",
            region=png(region),
            region_path="r",
        )
        for name, (image, mask, region) in found.items()
    ]
    other = ingested_pair("other", *lungs())
    write_data([*pairs, other], held_out=found)
    metrics = run()
    # Half of a mask found: 2 * 1 / (1 + 2).
    assert metrics["dice"]["mean"] == pytest.approx((1 + 2 / 3) / 2, abs=0.01)
    assert metrics["dice"]["min"] == pytest.approx(2 / 3, abs=0.01)
    assert metrics["false_alarms"]["mean"] == 0.5
    counts = ("num_images", "num_without_foreground", "num_undefined")
    assert [metrics[name] for name in counts] == [4, 2, 0]
    # Of the region: 1/2 and 1/2, 1/2 and 1/4 are foreground and are found.
    assert metrics["severity_error"]["mean"] == pytest.approx(0.125, abs=0.01)
    assert list(metrics["by_class"]["A"]) == ["dice"]
    assert metrics["by_class"]["B"]["false_alarms"]["mean"] == 0.5
    table = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")
    assert table.loc["alarm", ["dice", "iou", "false_alarms"]].tolist() == [0, 0, 1]
    assert table.loc[["alarm", "quiet"], "hd95_px"].isna().all()
    assert table.loc["half of it", "severity_pred"] == pytest.approx(0.25, abs=0.01)
    assert (paths.OVERLAYS / "alarm.png").is_file()
    assert not (paths.OVERLAYS / "quiet.png").exists()
    curve = pd.read_csv(paths.THRESHOLD_CURVE).set_index("threshold")["dice"]
    assert curve[0.5] == pytest.approx(metrics["dice"]["mean"], abs=1e-5)


def test_only_the_largest_regions_count_if_so_asked(scene, run, caplog):
    run()
    before = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")["dice"]
    assert "keep_components" not in caplog.text
    run(keep_components=1)
    after = pd.read_csv(paths.PER_IMAGE).set_index("pair_id")["dice"]
    # One of two lungs of like size: 2 * (1/2) / (1 + 1/2).
    assert after["easy 2"] == pytest.approx(2 / 3, abs=0.06)
    assert before["easy 2"] > 0.97
    assert "3 of 4 true masks have more than evaluate.keep_components (1)" in (
        caplog.text
    )


def test_a_mirrored_prediction_is_scored_if_so_asked(scene, run):
    brightness_model(shift=4).save(paths.MODEL)
    plain, mirrored = run(), run(flip_tta=True)
    assert abs(mirrored["dice"]["mean"] - plain["dice"]["mean"]) > 0.01


def test_the_same_input_gives_the_same_bytes(scene, run):
    def outputs():
        run()
        files = sorted(p for p in paths.METRICS.parent.rglob("*") if p.is_file())
        return {str(p): p.read_bytes() for p in files}

    first = outputs()
    assert len(first) >= 7
    names = {p.name for p in paths.OVERLAYS.iterdir()}
    assert "missed.png" in names <= {"easy 1.png", "easy 2.png", "missed.png"}
    assert outputs() == first


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04."])
def test_a_model_that_cannot_be_loaded_is_one_sentence(scene, run, content):
    paths.MODEL.write_bytes(content)
    with pytest.raises(PipelineError, match=r"unet\.keras should be a Keras model"):
        run()
    paths.MODEL.unlink()
    with pytest.raises(PipelineError, match="run `dvc repro train`"):
        run()
