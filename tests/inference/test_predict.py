import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from stages.cli import app
from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.imaging import decode_mask
from stages.inference import Segmenter
from stages.inference.predict import Row, predict, sources
from tests.conftest import lungs, png, run_python
from tests.datasets.sources.test_dicom import dicom
from tests.inference.onnx_models import dark_is_lung

SIZE = 32
GOOD = ["a/one", "a/two", "b/three"]


@pytest.fixture
def model(tmp_path):
    return dark_is_lung(tmp_path / "unet.onnx", SIZE)


@pytest.fixture
def images(tmp_path):
    """Three pictures whose dark parts are the lungs, of different sizes."""
    top = tmp_path / "images"
    for seed, name in enumerate(GOOD):
        path = top / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _, mask = lungs(seed, mask_size=60 + 10 * seed)
        path.write_bytes(png(np.where(mask > 0, 40, 200).astype(np.uint8)))
    return top


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def run_all(model, images, **options) -> tuple[Path, list[Row]]:
    out = images.parent / "out"
    return out, predict(model, [str(images)], out, **options)


def test_masks_have_the_images_own_size_and_find_the_lungs(model, images):
    out, rows = run_all(model, images, batch_size=2)
    assert [row.image for row in rows] == GOOD
    for seed, name in enumerate(GOOD):
        truth = lungs(seed, mask_size=60 + 10 * seed)[1] > 0
        mask = decode_mask((out / "masks" / f"{name}.png").read_bytes())
        assert mask.shape == truth.shape
        assert (mask == truth).mean() > 0.95
        row = table(out)[name]
        assert float(row["lung_area_fraction"]) == pytest.approx(mask.mean(), abs=1e-6)
        assert (row["components"], row["warning"], row["problem"]) == ("2", "", "")
        assert row["height"] == str(truth.shape[0])
        assert 0.9 < float(row["mean_confidence"]) <= 1
        assert cv2.imread(str(out / "overlays" / f"{name}.png")).shape == (428, 384, 3)
    assert not list(out.rglob(".*"))
    assert not paths.DATA.exists()
    first = files.sha256(out)
    run_all(model, images, force=True, batch_size=1)
    assert files.sha256(out) == first


def stamps(out: Path) -> dict[str, int]:
    return {p.stem: p.stat().st_mtime_ns for p in (out / "masks").rglob("*.png")}


def test_a_second_run_does_only_what_is_new(model, images):
    out, rows = run_all(model, images, overlays=False)
    assert not (out / "overlays").exists()
    run_all(model, images)
    assert (out / "overlays" / "a" / "one.png").is_file()
    before = stamps(out)
    (out / "masks" / "a" / "two.png").unlink()
    (images / "b" / "three.png").write_bytes((images / "a" / "one.png").read_bytes())
    assert [r.image for r in run_all(model, images)[1]] == GOOD
    after = stamps(out)
    assert after["one"] == before["one"]
    assert after["two"] > before["two"]
    assert after["three"] > before["three"]
    assert table(out)["b/three"]["sha256"] == rows[0].sha256
    run_all(model, images, threshold=0.25)  # other answers
    assert stamps(out)["one"] > after["one"]
    assert {row["threshold"] for row in table(out).values()} == {"0.25"}


def test_an_interrupted_run_goes_on_where_it_was(model, images, monkeypatch):
    """What was finished before has its row, though the run never came to its end."""
    real, calls = Segmenter.batch, []

    def dies(segment, prepared):
        calls.append(len(prepared))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(segment, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "batch", dies)
        with pytest.raises(KeyboardInterrupt):
            run_all(model, images, batch_size=1)
    out = images.parent / "out"
    assert list(table(out)) == ["a/one"]
    before = stamps(out)
    run_all(model, images)
    assert list(table(out)) == GOOD
    assert stamps(out)["one"] == before["one"]


def test_bad_files_are_named_and_the_rest_is_done(model, images):
    (images / "cut.png").write_bytes((images / "a" / "one.png").read_bytes()[:80])
    (images / "empty.jpg").touch()
    (images / "notes.txt").write_text("no image")
    (images / "no_suffix").write_bytes(dicom(lungs(3)[0]))
    done = run_python("-m", "stages.cli", "predict", model, images, "-o", "out")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 2 of 6 images could not")
    assert "empty.jpg: the file is empty" in done.stderr
    assert "4 of 6 images have a mask" in done.stdout
    rows = table(images.parent / "out")
    assert rows["empty"]["problem"] == "the file is empty"
    assert rows["cut"]["problem"]
    masks = {p.stem for p in (images.parent / "out" / "masks").rglob("*.png")}
    assert masks == {"one", "two", "three", "no_suffix"}
    (images / "cut.png").unlink()
    (images / "empty.jpg").unlink()
    words = ["predict", str(model), str(images), "-o", "out"]
    assert CliRunner().invoke(app, words).exit_code == 0


def test_names_of_files_folders_and_globs(images, monkeypatch):
    monkeypatch.chdir(images)
    out = Path("out")

    def names(*arguments):
        return list(sources(arguments, out).values())

    assert names("a/one.png") == ["one"]
    assert names("a", "b/three.png") == GOOD
    assert names("**/t*.png") == ["a/two", "b/three"]
    assert names("a/t*.png") == ["two"]
    assert names(".", "a/one.png") == GOOD
    (images / "a" / "one.jpg").write_bytes(b"")
    assert names("a") == ["one.jpg", "one.png", "two"]
    (images / "a" / ".hidden.png").write_bytes(b"")
    Path("out/masks").mkdir(parents=True)
    Path("out/masks/one.png").write_bytes(b"")
    assert len(names(".")) == 4
    for nothing in ("c", "*.gif", "out"):
        with pytest.raises(PipelineError, match="should name an image"):
            names(nothing)


def test_a_name_neither_moves_the_cursor_nor_is_a_formula(model, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("=HYPERLINK(1).png", "a\x1b[2J\nb.png", "-1.png"):
        (folder / name).write_bytes(b"")
    done = run_python("-m", "stages.cli", "predict", model, folder, "-o", "out")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert sorted(table(tmp_path / "out")) == [
        "'-1", "'=HYPERLINK(1)", "a\\x1b[2J\\nb"
    ]  # fmt: skip


def test_a_foreign_table_is_not_overwritten(model, images):
    out = images.parent / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("mine\n1\n")
    with pytest.raises(PipelineError, match="a table that this command wrote"):
        run_all(model, images)
    assert (out / "predictions.csv").read_text() == "mine\n1\n"
