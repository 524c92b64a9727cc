"""From pixels to a mask: every kind of input, one answer; and models that are none."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.core.errors import PipelineError
from stages.core.imaging import UnreadableImageError
from stages.inference import Segmenter, segmenter
from tests.conftest import ROOT, lungs, png, run_python
from tests.datasets.sources.test_dicom import dicom
from tests.inference.onnx_models import dark_is_lung

SIZE = 32
MASK = lungs(1, mask_size=60)[1] > 0
IMAGE = np.where(MASK, 40, 200).astype(np.uint8)


@pytest.fixture
def segment(tmp_path):
    return Segmenter(dark_is_lung(tmp_path / "unet.onnx", SIZE))


def test_an_array_a_path_and_bytes_give_the_same(segment, tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(png(IMAGE))
    wide = np.repeat(IMAGE[:, :, None], 3, axis=2)
    deep = IMAGE.astype(np.uint16) * 257
    first = segment(IMAGE)
    assert (first.mask == MASK).mean() > 0.95
    assert first.mask.dtype == bool
    assert first.probability.dtype == np.float32
    assert (first.mask == (first.probability >= 0.5)).all()
    assert first.area_fraction == first.mask.mean()
    assert first.components == 2
    assert 0.9 < first.mean_confidence <= 1
    assert first.warnings == ()
    for image in (path, str(path), png(IMAGE), wide, deep, deep[:, :, None]):
        assert (segment(image).probability == first.probability).all()
    for suffix in (".tiff", ".bmp", ".jpg"):
        encoded = bytes(cv2.imencode(suffix, IMAGE)[1])
        assert (segment(encoded).mask == first.mask).mean() > 0.99


def test_dicom_is_read_as_ingest_reads_it(segment):
    film = segment(dicom(IMAGE, PixelSpacing=[0.2, 0.5]))
    assert (film.mask == segment(IMAGE).mask).all()
    assert film.measures()["lung_area_cm2"] == pytest.approx(film.mask.sum() / 1000)
    assert segment(dicom(IMAGE)).area_cm2 is None
    with pytest.raises(UnreadableImageError, match="it is a DICOM file of 2 frames"):
        segment(dicom(IMAGE, NumberOfFrames=2))


def test_colours_of_an_array_are_red_first(tmp_path):
    """As Pillow and Matplotlib have them; files say themselves."""
    model = segmenter.Exported(lambda images: images[..., :1] * 0, SIZE, 3, {})
    segment = Segmenter(model)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert (segment(red).image == segment(png(red[..., ::-1])).image).all()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "the file is empty"),
        (b"<html>", "its content is html or xml"),
        (np.zeros((4, 4)), "found float64 of shape (4, 4)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "found uint8 of shape (2, 4, 4, 3)"),
        (np.zeros((0, 4), np.uint8), "of shape (0, 4)"),
        ("notes.txt", "notes.txt: its content is of no known format"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(segment, image, said):
    Path("notes.txt").write_text("no image")
    with pytest.raises(UnreadableImageError, match=re.escape(said)):
        segment(image)


def test_a_file_that_declares_too_much_is_not_decoded(tmp_path):
    segment = Segmenter(dark_is_lung(tmp_path / "unet.onnx", SIZE), max_pixels=3599)
    with pytest.raises(UnreadableImageError, match="60 x 60 pixels, more than"):
        segment(png(IMAGE))


def test_threshold_and_regions_are_the_models_own(tmp_path):
    facts = {"params": {"evaluate": {"threshold": 0.75, "keep_components": 1}}}
    path = dark_is_lung(tmp_path / "own.onnx", SIZE, facts=facts)
    segment = Segmenter(path)
    assert segment.threshold == 0.75
    assert segment(IMAGE).components == 1
    assert 0.1 < segment(IMAGE).area_fraction < 0.25  # one lung of two
    assert Segmenter(path, threshold=0.25).threshold == 0.25
    assert Segmenter(dark_is_lung(tmp_path / "none.onnx", SIZE)).threshold == 0.5


def test_warnings_come_from_the_ranges_in_the_file(tmp_path):
    ranges = {"image_mean": [20, 40], "foreground_fraction": [0.1, 0.6]}
    facts = {"data": {"mask_definition": "white is lung", "usual": ranges}}
    segment = Segmenter(dark_is_lung(tmp_path / "own.onnx", SIZE, facts=facts))
    assert segment(IMAGE).warnings[0].startswith("very bright (mean")
    # A model of something else expects no lungs.
    facts = {"data": {"mask_definition": "white (255) is tumour"}, "inputs": {}}
    other = Segmenter(dark_is_lung(tmp_path / "mri.onnx", SIZE, facts=facts))
    found = other(np.full((40, 40), 230, np.uint8))
    assert found.warnings == ()
    assert np.isnan(found.mean_confidence)


def test_three_lines_for_a_notebook(tmp_path):
    """Runs those of the README, without TensorFlow, pandas and other slow imports."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    (tmp_path / "data" / "export").mkdir(parents=True)
    dark_is_lung(tmp_path / "data" / "export" / "unet.onnx", SIZE)
    (tmp_path / "film.png").write_bytes(png(IMAGE))
    code = (
        "import sys, json\n"
        "heavy = 'tensorflow keras pandas pyarrow onnx pydantic pydicom'.split()\n"
        "sys.modules |= dict.fromkeys(heavy)\n"
        f"{lines}"
        "print(json.dumps([found.mask.shape, found.area_fraction]))\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    shape, area = json.loads(done.stdout)
    assert shape == [60, 60]
    assert area == pytest.approx(MASK.mean(), abs=0.02)


def test_another_file_than_an_exported_model_is_one_sentence(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x09no model")
    dark_is_lung(tmp_path / "other.onnx", SIZE, output="logits")
    for name, sentence in (
        ("bad", r"bad\.onnx should be an exported ONNX"),
        ("other", "and give `probability`"),
        ("gone", r"gone\.onnx is missing"),
    ):
        with pytest.raises(PipelineError, match=sentence):
            Segmenter(tmp_path / f"{name}.onnx")


def test_a_name_that_is_not_text_is_one_sentence(tmp_path):
    """Names of sizes are bytes in the file; the fuzzer made one that is no UTF-8."""
    path = dark_is_lung(tmp_path / "unet.onnx", 32)
    spoilt, count = re.subn(rb"\x12\x01n", b"\x12\x01\xff", path.read_bytes())
    assert count == 2  # of the input and of the output
    path.write_bytes(spoilt)
    with pytest.raises(PipelineError, match=r"unet.onnx should be an exported .*utf-8"):
        Segmenter(path)
