"""Does nothing foreign run, read a secret or carry what names a patient?

`ruff check --select S` (part of `make lint`) looks for calls that run foreign code.
"""

import contextlib
import io
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.datasets import pairs
from stages.datasets.sources import phantom
from stages.export import export
from stages.nn.inference import load_model
from tests.conftest import ROOT, run_to_verdict, with_overrides
from tests.datasets.sources.test_kaggle import DATASET, VARIABLES, zipped
from tests.kaggle_standin import SECRET, TOKEN, KaggleStandIn
from tests.plan import Plan
from tests.trees import write_radiography


class Payload:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("it-ran",))


def it_ran() -> bool:
    return Path("it-ran").exists()


class TestHostileModels:
    @pytest.mark.parametrize(
        "kind", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "StringLookup"]
    )
    def test_layers_that_run_code_or_read_files_are_refused(self, kind):
        """Whatever Keras itself thinks of them by now."""
        self._model({"class_name": kind, "config": {"vocabulary": "/etc/passwd"}})
        with pytest.raises(PipelineError, match=f"cannot be loaded .*{kind}"):
            load_model(Path("unet.keras"))

    @pytest.mark.parametrize("module", ["os", "builtins", "subprocess", "stages.train"])
    def test_objects_of_other_modules_are_refused(self, module):
        config = {"path": "it-ran", "name": "it-ran", "args": ["it-ran"]}
        self._model({"module": module, "class_name": "mkdir", "config": config})
        with pytest.raises(PipelineError, match="cannot be loaded"):
            load_model(Path("unet.keras"))
        assert not it_ran()

    def test_a_model_that_unpacks_to_more_than_it_is(self):
        """Keras stores a model's members; packed, zeros have no end."""
        with zipfile.ZipFile("unet.keras", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("config.json", "{}")
            file.writestr("metadata.json", "{}")
            file.writestr("model.weights.h5", bytes(2**24))
        with pytest.raises(PipelineError, match=r"cannot be loaded .*unpacks to"):
            load_model(Path("unet.keras"))

    @pytest.mark.parametrize("name", ["unet.keras", "unet.h5"])
    def test_hdf5_is_no_model_here(self, name):
        """Its older format holds pickled code, which safe mode has overlooked."""
        import h5py

        with h5py.File(name, "w") as file:
            layer = {"class_name": "Lambda", "config": {"function": ["gASV", None]}}
            config = {"class_name": "Sequential", "config": {"layers": [layer]}}
            file.attrs["model_config"] = json.dumps(config)
            file.attrs["keras_version"] = "2.0.0"
        with pytest.raises(PipelineError, match="cannot be loaded"):
            load_model(Path(name))

    @staticmethod
    def _model(layer: dict[str, object]) -> None:
        config = {
            "module": "keras", "class_name": "Sequential", "registered_name": None,
            "config": {"name": "s", "layers": [layer]},
        }  # fmt: skip
        with zipfile.ZipFile("unet.keras", "w") as file:
            file.writestr("config.json", json.dumps(config))
            file.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
            file.writestr("model.weights.h5", b"")


class TestHostileParquet:
    def test_a_pickled_type_is_never_made(self):
        """Arrow once unpickled a column's type on reading it."""
        extension = {
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(Payload()),
        }
        fields = [
            pa.field(f.name, f.type, f.nullable, metadata=extension)
            for f in pairs.SHARD_SCHEMA
        ]
        schema = pa.schema(fields, metadata={b"pandas": pickle.dumps(Payload())})
        empty = [pa.array([], field.type) for field in fields]
        table = pa.Table.from_arrays(empty, schema=schema)
        pq.write_table(table, "a.parquet", compression="none", use_dictionary=False)
        with contextlib.suppress(PipelineError):  # refused is as good
            assert not list(pairs.read_shard(Path("a.parquet")))
        assert not it_ran()

    def test_what_is_packed_is_refused(self):
        """One value again and again, packed: a thousandth of its size."""
        rows = 64
        columns = {
            field.name: pa.array(
                [{"binary": bytes(2**20), "bool": False}.get(str(field.type), "a")]
                * rows,
                field.type,
            )
            for field in pairs.SHARD_SCHEMA
        }
        table = pa.table(columns, schema=pairs.SHARD_SCHEMA)
        for options in (
            {"compression": "zstd", "use_dictionary": False},
            {"compression": "none", "use_dictionary": True},
        ):
            pq.write_table(table, "a.parquet", **options)
            assert Path("a.parquet").stat().st_size < 2**22
            with pytest.raises(PipelineError, match="is compressed"):
                list(pairs.read_shard(Path("a.parquet")))


class TestHostileCheckpoint:
    def test_a_pickled_array_is_not_loaded(self):
        from stages.nn.checkpoint import Checkpoint

        np.savez("checkpoint.npz", head=np.array([Payload()], object))
        assert Checkpoint(Path(), "fingerprint").load() is None
        assert not it_ran()


def test_params_make_no_objects():
    text = (ROOT / "params.yaml").read_text("utf-8")
    hostile = text.replace("limit: 0 ", "limit: !!python/name:os.system x ", 1)
    assert hostile != text
    Path("params.yaml").write_text(hostile, "utf-8")
    with pytest.raises(PipelineError, match="must be YAML"):
        load_params()


PATIENT, DATE = "Mustermann^Erika", "1987:03:21 04:05:06"


def named(encoded: bytes, number: int) -> tuple[bytes, str]:
    """The picture as PNG, JPEG or TIFF whose metadata name a patient; its suffix."""
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif.update({270: f"of {PATIENT}", 306: DATE, 315: PATIENT})
    text.add_text("Comment", PATIENT)
    text.add_itxt("Title", DATE)
    suffix, options = (
        (".png", {"pnginfo": text, "exif": exif}),
        (".jpg", {"comment": PATIENT, "exif": exif, "quality": 98}),
        (".tiff", {"exif": exif}),
    )[number % 3]
    buffer = io.BytesIO()
    Image.open(io.BytesIO(encoded)).save(
        buffer, {".jpg": "jpeg"}.get(suffix, suffix[1:]), **options
    )
    return buffer.getvalue(), suffix


def naming(files: Iterable[Path]) -> list[Path]:
    """The files that name the patient or the date."""
    words = (b"Mustermann", b"1987:03")
    return [path for path in files if any(w in path.read_bytes() for w in words)]


def test_only_the_shards_keep_metadata(tmp_path, tiny_params, caplog, capfd):
    folder = tmp_path / "theirs"
    params = tiny_params(**{"ingest.source": "folder", "ingest.folder": str(folder)})
    for number, pair in enumerate(phantom.pairs(params.ingest)):
        image, suffix = named(pair.image, number)
        for path, content in (
            (Path(pair.image_path).with_suffix(suffix), image),
            (pair.mask_path, named(pair.mask, 0)[0]),
        ):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    with caplog.at_level(logging.DEBUG):
        run_to_verdict(params)
        shutil.copy(ROOT / paths.LOCK, ".")
        export(params.export, train=params.train, evaluate=params.evaluate)
    written = {path for path in paths.DATA.rglob("*") if path.is_file()}
    shards = set(paths.INGESTED.iterdir())
    assert naming(shards)
    assert paths.EXPORT_SUMMARY in written
    assert naming(written - shards) == []
    said = "".join(capfd.readouterr()) + caplog.text
    assert "Mustermann" not in said
    assert "1987:03" not in said


def test_a_kaggle_token_is_nowhere_after_a_run(tmp_path, tiny_values):
    """Under DVC, with every log on, through a failure that is tried again."""
    keys = {"KAGGLE_KEY": "planted-key-0123", "KAGGLE_USERNAME": "planted-user"}
    root, home = tmp_path / "repository", tmp_path / "home"
    root.mkdir()
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle" / "access_token").write_text("KGAT_planted-in-a-file")
    plan = Plan(root, with_overrides(tiny_values, {"ingest.source": "kaggle"}))
    write_radiography(tmp_path / "theirs")
    with KaggleStandIn() as stand_in:
        stand_in.archives = {(DATASET, 5): zipped(tmp_path / "theirs")}
        stand_in.failures = [503]
        env = {k: v for k, v in plan.environment().items() if k not in VARIABLES}
        env |= stand_in.environment(home) | keys | {"LOG_LEVEL": "DEBUG"}
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "-v", "ingest"],
            cwd=root,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert stand_in.asked("archive.zip")
    places = {"log": (done.stdout + done.stderr).encode()} | {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for folder in (root / ".dvc", root / "data", home / "cache")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert any(".dvc/cache" in name for name in places)
    for secret in (TOKEN, *keys.values(), "planted-in", SECRET):
        assert [n for n, text in places.items() if secret.encode() in text] == []
