"""Are the pairs of a source stored whole, unaltered, and the same each time?"""

import resource
import zipfile

import numpy as np
import pandas as pd
import pytest

from benchmarks import processes
from stages.core import files, paths
from stages.datasets.pairs import read_shard, shard_paths
from stages.ingest import ingest
from tests.conftest import TINY, lungs, png, radiography_tree, run_python


@pytest.fixture
def from_folder(section, tmp_path):
    """Ingests the folder `in` with changed params."""
    place = {"source": "folder", "folder": str(tmp_path / "in")}
    return lambda **changes: ingest(section("ingest", **place, **changes))


def rows() -> pd.DataFrame:
    return pd.DataFrame([pair for shard in shard_paths() for pair in read_shard(shard)])


def test_rows_hold_what_the_files_hold_and_the_summary_counts(tmp_path, from_folder):
    top = radiography_tree(tmp_path / "in", {"COVID": 5, "Normal": 2})
    (top / "COVID" / "masks" / "COVID-1.png").unlink()
    (top / "COVID" / "images" / "COVID-2.png").unlink()
    (top / "COVID" / "images" / "COVID-3.png").write_bytes(bytes(50_000))
    assert from_folder(max_file_bytes=20_000) == paths.INGESTED
    assert [shard.name for shard in shard_paths()] == [
        "COVID-00000.parquet",
        "COVID-00001.parquet",
        "Normal-00000.parquet",
    ]
    table = rows().set_index("pair_id")
    assert len(table) == 7
    for row in table.drop(["COVID-1", "COVID-2", "COVID-3"]).itertuples():
        assert row.image == (tmp_path / "in" / row.image_path).read_bytes()
        assert row.mask == (tmp_path / "in" / row.mask_path).read_bytes()
    assert table.loc["COVID-3", "problem"] == (
        "image has 50000 bytes, more than ingest.max_file_bytes (20000)"
    )
    summary = files.read_json(paths.INGESTED_SUMMARY)
    assert summary["classes"] == {"COVID": 5, "Normal": 2}
    assert summary["num_pairs"] == 7
    assert summary["num_images_without_mask"] == 1
    assert summary["num_masks_without_image"] == 1
    assert summary["num_unreadable"] == 1
    assert summary["num_shards"] == 3
    assert summary["sha256"] == files.sha256(paths.INGESTED)
    assert str(tmp_path) not in str(summary)
    assert (summary["source"], summary["layout"]) == ("folder", "covid19_radiography")


@pytest.mark.parametrize("source", ["phantom", "folder"])
def test_the_same_bytes_each_time(tmp_path, section, source):
    top = radiography_tree(tmp_path / "in")
    params = section("ingest", source=source, folder=str(top))
    hashes = set()
    for _ in range(2):
        ingest(params)
        hashes.add((files.sha256(paths.INGESTED), paths.INGESTED_SUMMARY.read_text()))
    assert len(hashes) == 1


def test_nothing_of_an_earlier_run_survives(tmp_path, from_folder):
    radiography_tree(tmp_path / "in")
    from_folder()
    from_folder(classes=["Normal"])
    assert set(rows()["class_name"]) == {"Normal"}
    names = {path.name for path in paths.DATA.iterdir()}
    assert names == {".work", "ingested", "ingested.json"}
    assert list((paths.WORK / "partial").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [["ingest"], pytest.param(["ingest", "validate"], marks=pytest.mark.nightly)],
    ids=lambda names: names[-1],
)
def test_images_are_never_in_memory_all_at_once(stages, tmp_path):
    """What grows with the pairs is their names; a stage tells its own peak."""
    noise = np.random.default_rng(0).integers(0, 256, (299, 299), np.uint8)
    image, mask = png(noise), png(lungs(mask_size=256)[1])
    peaks = {}
    for pairs in (200, 1000):
        source = tmp_path / f"{pairs}.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for number in range(1, pairs + 1):
                archive.writestr(f"COVID/images/COVID-{number}.png", image)
                archive.writestr(f"COVID/masks/COVID-{number}.png", mask)
        values = {
            "ingest.source": "folder",
            "ingest.folder": str(source),
            "ingest.shard_bytes": 2**22,
            "ingest.shard_pairs": 512,
            "validate.image_mask_shapes": [["299x299", "256x256"]],
        }
        root = tmp_path / f"of-{pairs}"
        root.mkdir()
        processes.write_params(TINY | values, root)
        for name in stages:
            peaks[name, pairs] = processes.stage(name, root).peak_bytes
    added = 800 * (len(image) + len(mask))
    assert added > 70e6
    for name in stages:
        assert peaks[name, 1000] - peaks[name, 200] < added / 4, peaks


def test_a_mistake_is_one_sentence(tmp_path):
    place = {"ingest.source": "folder", "ingest.folder": "nowhere"}
    processes.write_params(TINY | place, tmp_path)
    done = run_python("-m", "stages.ingest")
    assert done.returncode == 1
    assert "'nowhere' does not exist" in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "data").glob("ingested*"))


def test_a_full_disk_keeps_what_was_there(tmp_path, from_folder):
    top = radiography_tree(tmp_path / "in", {"COVID": 4})
    from_folder()
    before = files.sha256(tmp_path / "data")
    radiography_tree(tmp_path / "in", {"COVID": 4, "Normal": 4}, image_size=200)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    place = {"ingest.source": "folder", "ingest.folder": str(top)}
    processes.write_params(TINY | place, tmp_path)
    done = run_python("-m", "stages.ingest", preexec_fn=limited)
    assert done.returncode == 1
    assert "would exceed the largest file size" in done.stderr
    assert "Traceback" not in done.stderr
    assert files.sha256(tmp_path / "data") == before
    assert list((tmp_path / "data" / ".work" / "partial").iterdir()) == []
