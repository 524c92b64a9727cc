import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import pytest
from ruamel.yaml import YAML

from stages.core import canonical, files, paths, provenance
from stages.core.errors import PipelineError
from stages.core.params import Params, parse_params
from stages.export import (
    FILES,
    card,
    export,
    litert,
    onnx_file,
    parity,
    saved_model,
    size,
)
from stages.inference import Segmenter
from stages.inference.score import open_model
from stages.nn import models
from stages.nn.inference import load_model, predictor, probabilities
from tests.conftest import (
    ROOT,
    TINY,
    ingested_pair,
    lungs,
    with_overrides,
    write_data,
)

CLASS = "Viral | <b>Pneumonia"  # a foreign name that Markdown would take for markup
FORMATS = {"unet.onnx": onnx_file, "saved_model": saved_model, "unet.tflite": litert}


def make_inputs(root: Path, values: dict) -> Params:
    """Lays everything that `export` reads under a folder."""
    params = parse_params(values)
    root.mkdir()
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    pairs = [
        ingested_pair(f"{CLASS}-{seed}", *lungs(seed, image_size=45), class_name=CLASS)
        for seed in range(5)
    ]
    with contextlib.chdir(root):
        write_data(pairs, held_out={pair.pair_id for pair in pairs[2:]})
    statistics = {
        "mean": 0.91, "median": 0.92, "p05": 0.8, "min": 0.7,
        "ci_low": 0.88, "ci_high": 0.94,
    }  # fmt: skip
    summaries = {
        paths.BUILD: {"libraries": {"keras": keras.__version__}, "threads": 2},
        paths.INGESTED_SUMMARY: {
            "source": "folder", "layout": "pairs", "folder": "Jane_Doe",
            "version": None, "dataset": "own pairs", "page": "", "citation": "",
            "licence": "CC BY 4.0", "mask_definition": "white (255) is lung",
            "num_pairs": 5, "classes": {CLASS: 5}, "sha256": "5" * 64,
        },
        paths.METRICS: {
            "dice": statistics, "iou": statistics, "hd95_px": {"mean": 2.5},
            "assd_px": {"mean": None}, "num_images": 3, "num_undefined": 1,
            "by_class": {CLASS: {"num_images": 3, "dice": statistics}},
        },
        paths.QUALITY_REPORT: {
            "accepted_statistics": {"image_mean": {"min": 60.5, "max": 180, "p05": 70}}
        },
        paths.SPLIT_SUMMARY: {
            "num_pairs": 5, "num_train": 2, "num_validation": 3, "num_groups": 5,
            "largest_group": 1,
            "by_class": {CLASS: {"num_train": 2, "num_validation": 3}},
        },
        paths.VERDICT: {
            "passed": True,
            "checks": [
                {"metric": "dice.mean", "value": 0.91, "kind": "min", "bound": 0.5}
            ],
        },
    }  # fmt: skip
    for path, summary in summaries.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(summary), encoding="utf-8")
    (root / paths.LOCK).write_text("keras==3\n", encoding="utf-8")
    (root / paths.MODEL).parent.mkdir(exist_ok=True)
    network(params).save(root / paths.MODEL)
    canonical.keras_archive(root / paths.MODEL)
    return params


def network(params: Params) -> keras.Model:
    """An untrained network whose batch norm has something to say."""
    keras.utils.set_random_seed(1)
    model = models.build(params.train)
    generator = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            low = (0.5, -0.3, -0.3, 0.5)
            layer.set_weights(
                [generator.uniform(a, a + 1, layer.gamma.shape) for a in low]
            )
    return model


def run_stage(folder: Path, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.export"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def values(shipped_values):
    export = {
        "export.parity_images": 3,
        "train.architecture": "unet",
        "export.variants": ["fp16", "int8"],
        "export.fp16_max_dice_loss": 0.3,
        "export.int8_max_dice_loss": 0.3,
    }
    return with_overrides(shipped_values, TINY | export)


@pytest.fixture(scope="module")
def twice(tmp_path_factory, values):
    """Two folders with the same inputs, exported by two processes at once."""
    first = tmp_path_factory.mktemp("export") / "first"
    make_inputs(first, values)
    second = first.with_name("second")
    shutil.copytree(first, second)
    # Whatever hangs on the order of a set differs between these two.
    runs = [run_stage(first, PYTHONHASHSEED="1"), run_stage(second, PYTHONHASHSEED="2")]
    for run in runs:
        log, _ = run.communicate(timeout=300)
        assert run.returncode == 0, log
        assert "Traceback" not in log
    return first, second


@pytest.fixture
def exported(twice, monkeypatch):
    """The folder of the first export, which the test runs in and leaves as it is."""
    monkeypatch.chdir(twice[0])
    return twice[0] / paths.EXPORT


@pytest.fixture
def inputs(twice, tmp_path, monkeypatch):
    """A copy of the inputs, before any export."""
    folder = tmp_path / "inputs"
    shutil.copytree(twice[0], folder)
    files.remove(folder / paths.EXPORT)
    files.remove(folder / paths.EXPORT_SUMMARY)
    monkeypatch.chdir(folder)
    return folder


def run_export(params: Params) -> Path:
    return export(params.export, train=params.train, evaluate=params.evaluate)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(twice):
    found = [
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted((folder / "data").rglob("*"))
            if path.is_file()
        }
        for folder in twice
    ]
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    assert {path.name for path in (twice[0] / paths.EXPORT).iterdir()} == {
        "unet.onnx", "saved_model", "unet.tflite", "model_card.md",
        "unet_fp16.onnx", "unet_int8.onnx",
    }  # fmt: skip
    # Git and DVC would lose it.
    assert not [
        path
        for path in (twice[0] / paths.EXPORT).rglob("*")
        if path.is_dir() and not any(path.iterdir())
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_answers_as_keras(exported, name):
    """Through `score`, which reads the input's size from the file."""
    images = np.random.default_rng(3).random((3, 32, 32, 1), np.float32)
    wanted = predictor(load_model(paths.MODEL))(images)
    assert wanted.std() > 0.01  # the weights do decide something
    model = open_model(exported / name)
    assert (model.image_size, model.image_channels) == (32, 1)
    assert model.mask_definition == "white (255) is lung"
    np.testing.assert_allclose(model.predict(images), wanted, atol=1e-5)


def test_summary(exported):
    summary = files.read_json(paths.EXPORT_SUMMARY)
    assert summary["num_parity_images"] == 3
    assert (summary["image_size"], summary["image_channels"]) == (32, 1)
    # The head of level 1 is dropped: 8 weights and a bias.
    whole = load_model(paths.MODEL).count_params()
    assert summary["parameters"] == whole - (8 + 1)
    for name, file_name in FILES.items():
        row = summary["formats"][name]
        assert row["sha256"] == files.sha256(exported / file_name)
        assert 0 <= row["max_probability_difference"] < 1e-5
        assert row["max_dice_difference"] == 0
        if name != "saved_model":
            assert row["bytes"] == (exported / file_name).stat().st_size


def test_variants_answer_nearly_alike(exported):
    summary = files.read_json(paths.EXPORT_SUMMARY)["formats"]
    for kind in ("fp16", "int8"):
        path = exported / f"unet_{kind}.onnx"
        assert summary[kind]["sha256"] == files.sha256(path)
        assert summary[kind]["dice_loss"] <= 0.3
        assert provenance.read(path) == provenance.read(exported / "unet.onnx")
        assert files.sha256(path) in (exported / "model_card.md").read_text("utf-8")
        found = Segmenter(path)(lungs(9, image_size=45)[0])
        wanted = Segmenter(exported / "unet.onnx")(lungs(9, image_size=45)[0])
        assert 0 < np.abs(found.probability - wanted.probability).max() < 0.2
    kinds = [node.op_type for node in onnx.load(exported / "unet_int8.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > 5


def test_the_onnx_graph_has_nothing_left_of_training(exported):
    model = onnx.load(exported / "unet.onnx")
    kinds = [node.op_type for node in model.graph.node]
    # Batch norm is in the convolutions' weights, NHWC costs no copy with one channel.
    assert not {"BatchNormalization", "Transpose", "Identity"} & set(kinds)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 13)]
    dims = [
        [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert [row[1:] for row in dims] == [[32, 32, 1], [32, 32, 1]]
    assert [row[0] for row in dims] == ["batch", "batch"]


@pytest.mark.parametrize("name", FORMATS)
def test_provenance_is_inside(exported, name):
    facts = provenance.read(exported / name)
    assert facts["data"]["sha256"] == "5" * 64
    assert facts["data"]["usual"] == {"image_mean": [60.5, 180]}
    assert facts["params"]["train"]["filters"] == [4, 8, 8]
    assert facts["params"]["evaluate"].keys() == {
        "keep_components", "flip_tta", "threshold",
    }  # fmt: skip
    assert facts["inputs"].keys() == provenance.INPUTS.keys()
    for key, path in provenance.INPUTS.items():
        assert facts["inputs"][key]["sha256"] == files.sha256(path)
    # A folder may be named after a person.
    assert "Jane_Doe" not in provenance.text(facts)


def test_card(exported):
    text = (exported / "model_card.md").read_text("utf-8")
    assert "No authority has examined it" in text
    assert "CC BY 4.0" in text
    assert "0.9100 | 0.8800 to 0.9400" in text
    assert "undefined" in text  # mean surface distance
    assert r"Viral \| \<b\>Pneumonia" in text
    assert CLASS not in text
    assert "Jane_Doe" not in text
    assert files.sha256(exported / "unet.onnx") in text
    # Snippets have this model's numbers; tests/test_snippets.py runs them.
    assert text.count("SIZE = 32") == 3
    assert "SIZE = 128" not in text


def test_the_card_speaks_of_lungs_only_where_there_are(exported):
    values = dict(
        image_size=32, image_channels=1, parameters=1, multiply_adds=1, formats={},
        file_names={}, inputs={}, threshold=0.5, num_parity_images=1,
        keep_components=0, flip_tta=False, is_read_by_opencv=True, initial_weights=None,
    )  # fmt: skip
    summaries = {
        name: files.read_json(path)
        for name, path in (
            ("build", paths.BUILD), ("split", paths.SPLIT_SUMMARY),
            ("metrics", paths.METRICS), ("verdict", paths.VERDICT),
        )
    }  # fmt: skip
    data = files.read_json(paths.INGESTED_SUMMARY)
    train = parse_params(YAML(typ="safe").load(Path("params.yaml").read_text())).train
    values |= {"file_names": FILES}
    formats = files.read_json(paths.EXPORT_SUMMARY)["formats"]
    values |= {**summaries, "train": train, "formats": formats}
    kaggle = {"source": "kaggle", "version": 5, "licence": "CC BY-SA 4.0"}
    values["metrics"]["by_class"] |= {"Normal": {"false_alarms": {"mean": 0.1}}}
    text = card.render(**values | {"is_read_by_opencv": False}, data=data | kaggle)
    assert "| Normal | no foreground |" in text
    assert "**OpenCV's dnn cannot read it.**" in text
    assert "| kaggle, version 5 |" in text
    assert "CC BY-SA 4.0" in text
    site = {"licence": "CC0", "mask_definition_id": "as-drawn"}
    values["split"] |= {"by_site": {"St. Mary": {"num_train": 0, "num_validation": 9}}}
    dice = {"mean": 0.91, "ci_low": 0.9, "ci_high": 0.92, "p05": 0.88}
    values["metrics"] |= {"by_site": {"St. Mary": {"dice": dice, "num_images": 9}}}
    mixed = {"sites": {"St. Mary": site}, "mask_definition_id": "as-drawn; other"}
    text = card.render(**values, data=data | mixed)
    assert "| St. Mary | 0 | 9 | CC0 | as-drawn |" in text
    assert "| St. Mary | 0 | 9 | 0.9100 | 0.9000 to 0.9200 | 0.8800 |" in text
    assert "define their masks in different ways" in text
    values |= {"metrics": summaries["metrics"], "initial_weights": {"sha256": "f00"}}
    assert "a `.keras` file, SHA-256 `f00`" in card.render(**values, data=data | mixed)
    del values["metrics"]["by_site"]
    brain = data | {"mask_definition": "white (255) is tumour", "dataset": "LGG"}
    text = card.render(**values, data=brain).lower().replace("lungfield", "")
    assert "lung" not in text


# Refusals


def test_nothing_is_exported_behind_a_failed_gate_or_without_an_input(inputs, values):
    files.write_json(paths.VERDICT, {"passed": False, "checks": []})
    with pytest.raises(PipelineError, match=r"verdict\.json should say"):
        run_export(parse_params(values))
    paths.VERDICT.unlink()
    with pytest.raises(PipelineError, match=r"verdict\.json is missing"):
        run_export(parse_params(values))
    assert not paths.EXPORT.exists()


@pytest.mark.parametrize("path", [paths.BUILD, paths.QUALITY_REPORT], ids=str)
def test_a_missing_input_is_named(inputs, values, path):
    path.unlink()
    with pytest.raises(PipelineError, match=f"{path.name} is missing"):
        run_export(parse_params(values))
    assert not paths.EXPORT.exists()


def test_a_corrupt_model_is_one_sentence(inputs, values):
    content = paths.MODEL.read_bytes()
    paths.MODEL.write_bytes(content[: len(content) // 3])
    with pytest.raises(PipelineError, match=r"unet\.keras should be a Keras model"):
        run_export(parse_params(values))
    assert not paths.EXPORT.exists()


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("unet", r"onnx .* 0\.\d+ in probability"),
        ("unet_int8", r"unet_int8\.onnx loses 0\.\d+ of Dice"),
    ],
)
def test_a_format_that_differs_leaves_no_export(
    inputs, values, monkeypatch, stem, message
):
    """An earlier export stays as it was; no half of the new one appears."""
    load = onnx_file.load

    def wrong(path: Path):
        predict = load(path)
        return (lambda x: 0 * predict(x)) if path.stem == stem else predict

    def refuse(path: str):
        raise cv2.error("Unsupported operation")

    monkeypatch.setattr(onnx_file, "load", wrong)
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", refuse)  # which is no failure
    paths.EXPORT.mkdir()
    (paths.EXPORT / "earlier").touch()
    with pytest.raises(PipelineError, match=message):
        run_export(parse_params(values))
    assert [path.name for path in paths.EXPORT.iterdir()] == ["earlier"]
    assert not paths.EXPORT_SUMMARY.exists()
    assert not list((paths.WORK / "partial").iterdir())


# Parts


def reference(masks: list[np.ndarray], prob: np.ndarray) -> parity.Reference:
    return parity.Reference(np.zeros_like(prob), masks, prob, 0.5)


def test_parity_measures_both_differences(values):
    params = parse_params(values).export
    mask = np.array([[True, True], [False, False]])
    prob = np.array([[0.9, 0.6], [0.4, 0.1]], np.float32).reshape(1, 2, 2, 1)
    same = parity.compare("same", lambda _: prob, reference([mask], prob), params)
    assert same == parity.Differences(0, 0)

    # One pixel goes from 0.5004 to 0.4996: Dice from 1 to 2 * 1 / (2 + 1).
    here, there = prob.copy(), prob.copy()
    here[0, 0, 1], there[0, 0, 1] = 0.5004, 0.4996
    with pytest.raises(PipelineError, match=r"near .* 0\.333333 in Dice"):
        parity.compare("near", lambda _: there, reference([mask], here), params)
    with pytest.raises(PipelineError, match="nan in probability"):
        parity.compare("nan", lambda _: prob * np.nan, reference([mask], prob), params)


def test_parity_where_truth_and_prediction_are_empty(values):
    params = parse_params(values).export
    prob = np.zeros((1, 2, 2, 1), np.float32)
    empty = np.zeros((2, 2), bool)
    found = parity.compare("empty", lambda _: prob, reference([empty], prob), params)
    assert found == parity.Differences(0, 0)
    # A whole mask out of nothing is a difference, even if nothing was there.
    with pytest.raises(PipelineError):
        parity.compare("full", lambda _: prob + 1, reference([empty], prob), params)


def test_multiply_adds_of_every_kind_of_kernel():
    layers = keras.layers
    image = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(image)  # 64 * 3 * 3 * 2 * 4 = 4608
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same", groups=2)(x)  # 16 * 9 * 2 * 4
    x = layers.Conv2DTranspose(3, 2, strides=2)(x)  # 16 * 2 * 2 * 4 * 3 = 768
    x = layers.DepthwiseConv2D(3, padding="same")(x)  # 64 * 9 * 3 = 1728
    x = layers.SeparableConv2D(5, 3, padding="same")(x)  # 64 * (9 * 3 + 3 * 5) = 2688
    x = layers.Dense(1)(x)  # 64 * 5 = 320
    model = keras.Model(image, x)
    assert size.multiply_adds(model) == 4608 + 1152 + 768 + 1728 + 2688 + 320


@pytest.mark.slow
def test_other_layers_convert_too(values, tmp_path):
    """Gates, residuals, colour: what other architectures are made of; mirrored."""
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.GroupNormalization(groups=1, center=False, scale=False)(image)
    x = layers.Conv2D(4, 3, padding="same")(x)
    skip = layers.BatchNormalization()(x)
    x = layers.AveragePooling2D(2)(layers.LeakyReLU()(skip))
    x = layers.SeparableConv2D(4, 3, padding="same", activation="silu")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    gate = layers.Activation("sigmoid")(layers.Conv2D(1, 1)(layers.Add()([x, skip])))
    x = layers.Concatenate()([layers.Multiply()([skip, gate]), x])
    shipped = probabilities(keras.Model(image, layers.Conv2D(1, 1)(x)), flip_tta=True)
    images = np.random.default_rng(4).random((2, 16, 16, 3), np.float32)
    wanted = shipped(images, training=False).numpy()
    for name in "ab":  # the second time, TensorFlow's counters stand elsewhere
        onnx_file.write(shipped, tmp_path / f"{name}.onnx", facts={})
        litert.write(shipped, tmp_path / f"{name}.tflite", facts={})
    for ending in (".onnx", ".tflite"):
        first, second = (tmp_path / f"{name}{ending}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    saved_model.write(shipped, tmp_path / "a", facts={})
    for name, module in (
        ("a.onnx", onnx_file),
        ("a.tflite", litert),
        ("a", saved_model),
    ):
        found = module.load(tmp_path / name)(images)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
