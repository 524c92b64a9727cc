"""Are the pairs of a source stored whole, unaltered, and the same each time?"""

import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from benchmarks import processes
from stages.core import files, paths
from stages.core.params import IngestParams
from stages.datasets.pairs import read_shard, shard_paths
from stages.ingest import ingest
from tests.conftest import ROOT, TINY, lungs, png, radiography_tree, with_overrides


@pytest.fixture
def ingest_params(tiny_params):
    def build(**overrides: Any) -> IngestParams:
        values = {f"ingest.{key}": value for key, value in overrides.items()}
        return tiny_params(**values).ingest

    return build


@pytest.fixture
def from_folder(ingest_params, tmp_path):
    return lambda **overrides: ingest_params(
        source="folder", folder=str(tmp_path / "in"), **overrides
    )


def rows(out: Path = paths.INGESTED) -> pd.DataFrame:
    return pd.DataFrame(
        [pair for shard in shard_paths(out) for pair in read_shard(shard)]
    )


def run_stage(
    values: dict[str, Any], folder: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m stages.ingest` in a folder, as DVC does."""
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    return subprocess.run(
        [sys.executable, "-m", "stages.ingest"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


class TestShards:
    def test_a_row_holds_what_the_files_hold(self, tmp_path, from_folder):
        radiography_tree(tmp_path / "in", {"COVID": 5, "Normal": 2})
        assert ingest(from_folder()) == paths.INGESTED
        assert [shard.name for shard in shard_paths()] == [
            "COVID-00000.parquet",
            "COVID-00001.parquet",
            "Normal-00000.parquet",
        ]
        table = rows()
        assert len(table) == 7
        for row in table.itertuples():
            assert row.image == (tmp_path / "in" / row.image_path).read_bytes()
            assert row.mask == (tmp_path / "in" / row.mask_path).read_bytes()

    @pytest.mark.parametrize("source", ["phantom", "folder"])
    def test_the_same_bytes_each_time(self, tmp_path, from_folder, source):
        radiography_tree(tmp_path / "in")
        params = from_folder().model_copy(update={"source": [source]})
        hashes = []
        for name in ("a", "b"):
            out, summary = Path(f"{name}/shards"), Path(f"{name}/summary.json")
            ingest(params, out=out, summary=summary)
            hashes.append((files.sha256(out), files.sha256(summary)))
        assert hashes[0] == hashes[1]

    def test_nothing_of_an_earlier_run_survives(self, tmp_path, from_folder):
        radiography_tree(tmp_path / "in")
        ingest(from_folder())
        ingest(from_folder(classes=["Normal"]))
        assert set(rows()["class_name"]) == {"Normal"}
        assert {path.name for path in paths.DATA.iterdir()} == {
            ".work",
            "ingested",
            "ingested.json",
        }
        assert list((paths.WORK / "partial").iterdir()) == []


class TestSummary:
    def test_it_counts(self, tmp_path, from_folder):
        top = radiography_tree(tmp_path / "in", {"COVID": 5, "Normal": 2})
        (top / "COVID" / "masks" / "COVID-1.png").unlink()
        (top / "COVID" / "images" / "COVID-2.png").unlink()
        (top / "COVID" / "images" / "COVID-3.png").write_bytes(bytes(50_000))
        ingest(from_folder(max_file_bytes=20_000))
        summary = files.read_json(paths.INGESTED_SUMMARY)
        assert summary["classes"] == {"COVID": 5, "Normal": 2}
        assert summary["num_pairs"] == 7
        assert summary["num_images_without_mask"] == 1
        assert summary["num_masks_without_image"] == 1
        assert summary["num_unreadable"] == 1
        assert summary["num_shards"] == 3
        assert summary["sha256"] == files.sha256(paths.INGESTED)
        assert str(tmp_path) not in str(summary)
        assert summary["source"] == "folder"
        assert summary["layout"] == "covid19_radiography"
        assert rows().set_index("pair_id").loc["COVID-3", "problem"] == (
            "image has 50000 bytes, more than ingest.max_file_bytes (20000)"
        )


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


class TestCommand:
    @pytest.mark.parametrize(
        ("overrides", "sentence"),
        [
            ({"ingest.folder": "nowhere"}, "'nowhere' does not exist"),
            ({"ingest.layout": "lgg_mri"}, "set ingest.layout to covid19_radiography"),
        ],
    )
    def test_a_mistake_is_one_sentence(
        self, tmp_path, tiny_values, overrides, sentence
    ):
        radiography_tree(tmp_path / "data" / "incoming", {"COVID": 1})
        values = with_overrides(tiny_values, {"ingest.source": "folder", **overrides})
        done = run_stage(values, tmp_path)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "data" / "ingested").exists()
        assert not (tmp_path / "data" / "ingested.json").exists()

    def test_a_full_disk_keeps_what_was_there(self, tmp_path, tiny_values, from_folder):
        radiography_tree(tmp_path / "in", {"COVID": 4})
        ingest(from_folder())
        before = files.sha256(tmp_path / "data")
        radiography_tree(tmp_path / "in", {"COVID": 4, "Normal": 4}, image_size=200)

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

        values = with_overrides(
            tiny_values,
            {"ingest.source": "folder", "ingest.folder": str(tmp_path / "in")},
        )
        done = run_stage(values, tmp_path, preexec_fn=limited)
        assert done.returncode == 1
        assert "would exceed the largest file size" in done.stderr
        assert "Traceback" not in done.stderr
        assert files.sha256(tmp_path / "data") == before
        assert list((tmp_path / "data" / ".work" / "partial").iterdir()) == []
