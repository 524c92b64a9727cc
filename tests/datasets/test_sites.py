"""Several data sets as sites: found, told apart, and refused in one sentence."""

import json
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest

from stages.core import paths
from stages.core.errors import PipelineError
from stages.datasets.pairs import read_shard, shard_paths
from stages.datasets.sources import kaggle
from stages.ingest import ingest
from stages.validate import validate
from tests.conftest import lungs, png, radiography_tree, two_sites


@pytest.fixture
def folder(tmp_path):
    return two_sites(tmp_path / "in")


@pytest.fixture
def run(section):
    """Ingests sites with changed params."""
    sites = {"source": "folder", "layout": "sites", "folder": "in"}
    return lambda **changes: ingest(section("ingest", **sites | changes))


def test_a_folder_and_a_zip_are_sites_by_their_own_names(folder, run):
    run()
    names = [path.name for path in shard_paths()]
    assert names == [
        f"{name}-{shard:05d}.parquet"
        for name in ("north-COVID", "north-Normal", "south-ward")
        for shard in range(2)
    ]
    pairs = [pair for path in shard_paths() for pair in read_shard(path)]
    assert {pair.site for pair in pairs} == {"north", "south"}
    assert pairs[0].pair_id == "north-COVID-1"
    facts = json.loads(paths.INGESTED_SUMMARY.read_text())
    assert facts["sites"]["south"]["num_pairs"] == 6
    assert facts["sites"]["north"]["dataset"] == "COVID-19 Radiography Database"
    # A data set of the same shape but other classes is not given that one's licence.
    assert facts["sites"]["south"]["licence"].startswith("not stated")
    assert facts["mask_definition_id"] == "lung-without-heart"


def test_a_table_names_layout_target_classes_and_licence(folder, run):
    (folder / "sites.yaml").write_text(
        "north: {classes: [Normal], licence: CC0}\n"
        "south: {layout: pairs, target: lesion}\n"
    )
    with pytest.raises(PipelineError, match="alike, but 'north' has lung-without-hea"):
        run()
    assert not paths.INGESTED.exists()
    run(allow_mixed_masks=True)
    facts = json.loads(paths.INGESTED_SUMMARY.read_text())
    assert facts["classes"] == {"Normal": 6, "ward": 6}
    assert facts["sites"]["north"]["licence"] == "CC0"
    assert facts["mask_definition_id"] == "lung-without-heart; lesion-as-drawn"


def test_sources_go_together(folder, run, section, monkeypatch):
    top = radiography_tree(folder.parent / "cached", {"COVID": 3})
    monkeypatch.setattr(kaggle, "fetch", lambda _: top)
    sources = ["kaggle", "folder", "phantom"]
    run(source=sources)
    facts = json.loads(paths.INGESTED_SUMMARY.read_text())
    pairs = {name: of_site["num_pairs"] for name, of_site in facts["sites"].items()}
    found = "covid19-radiography-database"
    assert pairs == {found: 3, "north": 12, "phantom": 12, "south": 6}
    assert facts["source"] == "kaggle and folder and phantom"
    with pytest.raises(PipelineError, match="source needs the layout sites"):
        section("ingest", source=sources)


def test_shapes_are_judged_per_site(folder, run, section):
    """The south's sizes are not listed: its masks must have their images' sizes."""
    for kind, pixels in zip(("images", "masks"), lungs(9, mask_size=40), strict=True):
        (folder / "north" / "COVID" / kind / "x.png").write_bytes(png(pixels))
    run()
    validate(section("validate", min_pairs=1, max_rejected_fraction=0.2))
    table = pd.read_parquet(paths.QUALITY_PAIRS).set_index("pair_id")
    assert table.loc[table["site"] == "south", "accepted"].all()
    rejected = table[~table["accepted"]]
    assert list(rejected.index) == ["north-COVID-x"]
    assert "(at a site of other sizes: alike)" in rejected["reason"].iloc[0]
    report = json.loads(paths.QUALITY_REPORT.read_text())
    assert report["by_site"]["south"]["num_accepted"] == 6
    assert "By site" in (paths.QUALITY_DOCS / "index.html").read_text()


def _without_masks(folder: Path) -> None:
    shutil.rmtree(folder / "north" / "COVID" / "masks")
    shutil.rmtree(folder / "north" / "Normal" / "masks")


def _one_film(folder: Path) -> None:
    shutil.rmtree(folder / "north")
    radiography_tree(folder / "north", {"COVID": 1})


def _images_at_the_top(folder: Path) -> None:
    (folder / "north" / "COVID").rename(folder / "COVID")
    for child in (folder / "COVID").iterdir():
        child.rename(folder / child.name)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_without_masks, "in/north holds 12 files but no image with its mask in any"),
        (_one_film, "site 'north' should have at least 2 pairs but has 1"),
        (_images_at_the_top, "'in/images' cannot give a site its name"),
        (lambda f: (f / "north").rename(f / "all"), "'in/all' cannot give a site its"),
        (lambda f: (f / "north").rename(f / "a;b"), "'in/a;b' cannot give a site its"),
        (
            lambda f: (f / "north").rename(f / "south"),
            "two sites have the name 'south'",
        ),
        (lambda f: shutil.rmtree(f), "'in' is not a folder"),
        (lambda f: [shutil.rmtree(f), f.mkdir()], "a folder or a zip per site, but"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(folder, run, spoil, sentence):
    spoil(folder)
    with pytest.raises(PipelineError) as error:
        run()
    assert sentence in str(error.value)
    assert not paths.INGESTED.exists()
    assert not paths.INGESTED_SUMMARY.exists()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("5", "sites.yaml names no site; it"),
        ("../south: {}", "names '../south', which is not a site; it may name 'north'"),
        ("south: {layout: dicom}", "sites.yaml: south.layout: must be one of covid19"),
        ("south: {tagret: lung}", "south.tagret is not a known key"),
        ("south: {target: heart}", "ingest.target should be lung for the data set"),
        ("a: [", "sites.yaml must be YAML"),
        ("south: pairs", "south must be a valid dictionary, found 'pairs'"),
    ],
)
def test_a_bad_table_is_one_sentence(folder, run, table, sentence):
    (folder / "sites.yaml").write_text(table)
    with pytest.raises(PipelineError) as error:
        run()
    assert sentence in str(error.value)


def test_a_site_fails_by_its_own_rejections_and_inverted_masks(folder, run, section):
    for path in (folder / "north").rglob("masks/*.png"):
        path.write_bytes(png(255 - cv2.imread(str(path))))
    for path in (folder / "north").rglob("images/COVID-*.png"):
        path.write_bytes(b"no image")
    run()
    with pytest.raises(PipelineError) as error:
        validate(section("validate", min_pairs=1, max_rejected_fraction=0.4))
    assert "6 of 12 pairs of 'north' are rejected" in str(error.value)
    assert "the masks of 'north' look inverted" in str(error.value)
    assert not paths.QUALITY_PAIRS.exists()
