import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.core import provenance
from stages.core.errors import PipelineError
from stages.core.paths import METRICS, MODEL, PER_IMAGE
from stages.datasets import layouts
from stages.datasets.sources.folder import pairs_in
from stages.inference.score import open_model, score
from tests.conftest import ROOT, ingested_pair, lungs, png, run_python, write_data
from tests.inference.onnx_models import dark_is_lung

SIZE = 32
FACTS = {"data": asdict(layouts.load("covid19_radiography").ABOUT.facts())}


def write_pair(top: Path, class_name: str, number: int, image, mask) -> None:
    for kind, pixels in (("images", image), ("masks", mask)):
        (top / class_name / kind).mkdir(parents=True, exist_ok=True)
        name = f"{class_name}-{number}.png"
        (top / class_name / kind / name).write_bytes(png(pixels))


@pytest.fixture
def data(tmp_path):
    """Two easy pairs and one of which nothing can be found, in two classes."""
    top = tmp_path / "COVID-19_Radiography_Dataset"
    for number, class_name in ((1, "COVID"), (2, "Normal")):
        _, mask = lungs(number, mask_size=64)
        write_pair(top, class_name, number, 255 - mask, mask)
    white = np.full((SIZE, SIZE), 255, np.uint8)
    write_pair(top, "Normal", 3, white, lungs(3)[1])
    return top


@pytest.fixture
def run(tmp_path, data, section):
    """Scores a model, by default on that data; writes to `out`."""

    def run_score(model=None, place=data, **ingest):
        if model is None:
            model = dark_is_lung(tmp_path / "unet.onnx", SIZE, facts=FACTS)
        sections = {"ingest": section("ingest", **ingest)}
        sections["evaluate"] = section("evaluate")
        return score(model, place, tmp_path / "out", **sections)

    return run_score


def test_each_mask_is_scored_at_its_own_size(tmp_path, data, run, caplog):
    metrics = run()
    table = pd.read_csv(tmp_path / "out" / "per_image.csv").set_index("pair_id")
    assert list(table.index) == ["COVID-1", "Normal-2", "Normal-3"]
    assert table.loc["COVID-1", "dice"] > 0.97
    assert table.loc["Normal-3", "dice"] == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["dice"]["mean"] == pytest.approx(table["dice"].mean(), abs=1e-6)
    assert written["num_images"] == 3
    assert (written["num_undefined"], written["num_skipped"]) == (1, 0)
    assert written["data"]["same_mask_definition"] is True
    assert written["model_sha256"] == metrics["model_sha256"]
    pictures = {p.name for p in (tmp_path / "out" / "overlays").iterdir()}
    assert "Normal-3.png" in pictures
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_as_many_regions_as_the_model_was_judged_with(tmp_path, data, run):
    facts = FACTS | {"params": {"evaluate": {"keep_components": 1}}}
    model = dark_is_lung(tmp_path / "one.onnx", SIZE, facts=facts)
    run(model)
    table = pd.read_csv(tmp_path / "out" / "per_image.csv").set_index("pair_id")
    assert table.loc["Normal-2", "dice"] == pytest.approx(2 / 3, abs=0.06)


def test_the_numbers_are_those_of_evaluate(tmp_path, data, run, section):
    """The same network, as `.keras` through the stage and as ONNX through the tool."""
    from stages.evaluate import evaluate
    from tests.test_evaluate import brightness_model

    MODEL.parent.mkdir(parents=True)
    brightness_model().save(MODEL)
    pairs = list(pairs_in(data, section("ingest")))
    other = ingested_pair("other", *lungs())
    write_data([*pairs, other], held_out=[pair.pair_id for pair in pairs])
    expected = evaluate(section("evaluate"))

    found = run(MODEL)
    assert (tmp_path / "out" / "per_image.csv").read_bytes() == PER_IMAGE.read_bytes()
    judged = json.loads(METRICS.read_text())
    again = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name in ("hd95_px", "assd_px", "num_images", "num_undefined"):
        assert again[name] == judged[name]
    # Groups go by content here, by split there: the interval's draws differ.
    for name in ("mean", "median", "p05", "min"):
        assert again["dice"][name] == judged["dice"][name]
    assert found["dice"]["mean"] == expected["dice"]["mean"]
    assert open_model(MODEL).mask_definition == ""


def test_copies_are_one_draw_of_the_interval(tmp_path, data, run):
    """A copy moves the mean, but is no further evidence."""
    top = tmp_path / "copies"
    for number in range(1, 5):
        write_pair(top, "COVID", number, *lungs(1, image_size=32))
    metrics = run(place=top)
    assert metrics["num_images"] == 4
    assert np.isnan(metrics["dice"]["ci_low"])


def test_pairs_that_cannot_be_read_are_named(tmp_path, data, run, caplog):
    (data / "COVID" / "images" / "COVID-1.png").write_bytes(b"no image")
    (data / "Normal" / "masks" / "Normal-2.png").unlink()
    metrics = run()
    assert (metrics["num_images"], metrics["num_skipped"]) == (1, 2)
    assert "skipped COVID-1: image: its content is of no known format" in caplog.text
    assert "skipped Normal-2: mask is missing" in caplog.text
    (data / "Normal" / "images" / "Normal-3.png").write_bytes(b"")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(PipelineError, match="3 pairs, but none can be read"):
        run()
    assert not (tmp_path / "out").exists()


def test_another_mask_definition_is_told(tmp_path, data, run, caplog):
    facts = {
        "data": {
            "mask_definition_id": "lung-with-heart",
            "mask_definition": "with the lung behind the heart",
        }
    }
    model = dark_is_lung(tmp_path / "other.onnx", SIZE, facts=facts)
    metrics = run(model)
    assert metrics["data"]["same_mask_definition"] is False
    assert "only if both masks mean the same" in caplog.text
    assert "with the lung behind the heart" in caplog.text
    silent = dark_is_lung(tmp_path / "silent.onnx", SIZE)
    metrics = run(silent)
    assert metrics["data"]["same_mask_definition"] is None
    assert "carries no mask definition" in caplog.text


def test_the_target_is_a_choice_and_its_meaning_is_told(tmp_path, run, caplog):
    top = tmp_path / "Infection Segmentation Data" / "Test" / "COVID-19"
    image, mask = lungs(1, image_size=SIZE, mask_size=SIZE)
    for kind, pixels in (
        ("images", 255 - mask),
        ("lung masks", mask),
        ("infection masks", mask // 255),  # any value but 0 is foreground
    ):
        (top / kind).mkdir(parents=True)
        (top / kind / "covid_1.png").write_bytes(png(pixels))
    (top / "images" / "covid_2.png").write_bytes(png(image))
    (top / "infection masks" / "covid_2.png").write_bytes(png(image))
    choice = {"layout": "covid_qu_ex", "target": "infection"}
    metrics = run(place=tmp_path, **choice)
    assert "infected" in metrics["data"]["mask_definition"]
    assert metrics["data"]["same_mask_definition"] is False
    assert metrics["dice"]["mean"] > 0.97
    assert metrics["num_skipped"] == 1
    assert "values, expected 0 and one other" in caplog.text


def test_a_file_that_does_not_say_what_it_takes_is_one_sentence(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    provenance.write_beside(tmp_path, {"inputs": {}, "params": {}})
    with pytest.raises(PipelineError, match="its image size and channels"):
        open_model(tmp_path)


def test_the_command(tmp_path, data):
    dark_is_lung(tmp_path / "unet.onnx", SIZE, facts=FACTS)
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def command(*words):
        code = (
            "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
            "from stages.cli import main; main()"
        )
        return run_python("-c", code, "score", "unet.onnx", data, *words)

    done = command("--class", "COVID", "--limit", "1")
    assert done.returncode == 0, done.stderr
    assert "on 1 images; " in done.stdout
    out = tmp_path / "data/.work/scores/COVID-19_Radiography_Dataset"
    assert (out / "metrics.json").is_file()
    (data / "COVID" / "images" / "COVID-1.png").write_bytes(b"")
    done = command("-o", "here", "--threshold", "0.3")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 1 pairs of")
    assert json.loads((tmp_path / "here/metrics.json").read_text())["threshold"] == 0.3
