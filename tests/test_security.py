"""Does nothing foreign run, leave its folder, read a secret or call home?"""

import ast
import contextlib
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.core import errors, paths
from stages.core.errors import PipelineError
from stages.core.params import load_params
from stages.datasets import pairs
from stages.datasets.sources import phantom
from stages.datasets.tree import Archive
from stages.export import export
from stages.inference import segmenter
from stages.nn.inference import load_model
from tests import planted
from tests.conftest import ROOT, run_to_verdict, with_overrides
from tests.datasets.sources.test_kaggle import DATASET, VARIABLES, archive
from tests.kaggle_standin import SECRET, TOKEN, KaggleStandIn
from tests.plan import Plan

SOURCES = sorted((ROOT / "stages").rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, under the name it is called by, such as `os.system`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    """What a call passes under a name, as source text."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


class TestSource:
    """What no line of the code may do."""

    BANNED: ClassVar = {
        "eval", "exec", "compile", "__import__", "os.system", "os.popen",
        "os.execv", "os.spawnv", "subprocess.getoutput", "subprocess.getstatusoutput",
        "pickle.load", "pickle.loads", "joblib.load", "torch.load",
        "pd.read_pickle", "pandas.read_pickle", "tempfile.mktemp",
        "keras.config.enable_unsafe_deserialization",
    }  # fmt: skip

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_calls(self, path: Path) -> None:
        assert not re.search(r"^\s*import yaml\b", path.read_text("utf-8"), re.M)
        for name, call in calls(path):
            assert name not in self.BANNED, f"line {call.lineno}"
            assert not name.endswith((".extractall", ".extract")), "zips stay packed"
            assert keyword(call, "shell") is None, "a list of words needs no shell"
            assert keyword(call, "allow_pickle") in (None, "False")
            if name in ("np.load", "numpy.load"):
                assert keyword(call, "allow_pickle") == "False"
            if name.endswith("load_model") and "models" in name:
                assert keyword(call, "safe_mode") == "True"
            if name == "YAML":
                # Without a type it is the round-trip reader, which makes no objects.
                assert keyword(call, "typ") in (None, "'safe'")
            if name in ("subprocess.run", "subprocess.Popen"):
                assert not isinstance(call.args[0], ast.JoinedStr | ast.Constant)
            if name in ("Environment", "jinja2.Environment"):
                is_page = "card.py" not in str(path)  # a card is Markdown
                assert (keyword(call, "autoescape") == "True") == is_page

    @pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
    def test_no_server_listens_to_everybody(self, path: Path) -> None:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant):
                assert node.value not in ("0.0.0.0", "::"), f"line {node.lineno}"


class Payload:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("it-ran",))


def it_ran() -> bool:
    return Path("it-ran").exists()


class TestHostileModels:
    def test_code_in_a_lambda_layer_does_not_run(self) -> None:
        image = keras.Input((8, 8, 1))
        layer = keras.layers.Lambda(lambda x: [x, __import__("os").mkdir("it-ran")][0])
        model = keras.Model(image, layer(image))
        files = Path("it-ran")
        files.rmdir()  # the layer ran once, while it was built
        model.save("unet.keras")
        files.rmdir() if files.exists() else None
        with pytest.raises(PipelineError, match="cannot be loaded"):
            load_model(Path("unet.keras"))
        assert not it_ran()

    @pytest.mark.parametrize(
        "kind", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "StringLookup"]
    )
    def test_layers_that_run_code_or_read_files_are_refused(self, kind: str) -> None:
        """Whatever Keras itself thinks of them by now."""
        self._model({"class_name": kind, "config": {"vocabulary": "/etc/passwd"}})
        with pytest.raises(PipelineError, match=f"cannot be loaded .*{kind}"):
            load_model(Path("unet.keras"))

    @pytest.mark.parametrize("module", ["os", "builtins", "subprocess", "stages.train"])
    def test_objects_of_other_modules_are_refused(self, module: str) -> None:
        config = {"path": "it-ran", "name": "it-ran", "args": ["it-ran"]}
        self._model({"module": module, "class_name": "mkdir", "config": config})
        with pytest.raises(PipelineError, match="cannot be loaded"):
            load_model(Path("unet.keras"))
        assert not it_ran()

    def test_a_model_that_unpacks_to_more_than_it_is(self) -> None:
        """Keras stores a model's members; packed, zeros have no end."""
        with zipfile.ZipFile("unet.keras", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("config.json", "{}")
            file.writestr("metadata.json", "{}")
            file.writestr("model.weights.h5", bytes(2**24))
        with pytest.raises(PipelineError, match=r"cannot be loaded .*unpacks to"):
            load_model(Path("unet.keras"))

    @pytest.mark.parametrize("name", ["unet.keras", "unet.h5"])
    def test_hdf5_is_no_model_here(self, name: str) -> None:
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
    def test_a_pickled_type_is_never_made(self) -> None:
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

    def test_what_is_packed_is_refused(self) -> None:
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
    def test_a_pickled_array_is_not_loaded(self) -> None:
        from stages.nn.checkpoint import Checkpoint

        np.savez("checkpoint.npz", head=np.array([Payload()], object))
        assert Checkpoint(Path(), "fingerprint").load() is None
        assert not it_ran()


class TestHostileParams:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("limit: 0 ", "limit: !!bool x ", "must be YAML: "),
            ("limit: 0 ", "limit: !!python/name:os.system x ", "must be YAML"),
        ],
    )
    def test_is_one_sentence(self, old: str, new: str, said: str) -> None:
        text = (ROOT / "params.yaml").read_text("utf-8")
        assert old in text
        Path("params.yaml").write_text(text.replace(old, new, 1), "utf-8")
        with pytest.raises(PipelineError, match=re.escape(said)):
            load_params()

    def test_a_few_aliases_are_fine(self) -> None:
        text = (ROOT / "params.yaml").read_text("utf-8")
        text = text.replace("seed: 7 ", "seed: &s 7 ").replace("seed: 12 ", "seed: *s ")
        Path("params.yaml").write_text(text, "utf-8")
        assert load_params().split.seed == 7

    def test_the_bounds_are_params_with_sane_values(self) -> None:
        shipped = load_params(ROOT / "params.yaml")
        assert shipped.validate_.max_image_pixels == segmenter.MAX_PIXELS == 4096**2
        assert shipped.ingest.max_file_bytes == 2**25
        assert shipped.ingest.max_zip_members == 400_000
        assert shipped.ingest.max_zip_bytes == 2**36


class TestHostileZip:
    def test_names_longer_than_any_path_are_refused(self) -> None:
        with zipfile.ZipFile("a.zip", "w") as file:
            file.writestr("a/" * 600 + "1.png", b"")
        with pytest.raises(PipelineError, match="a name that is not portable"):
            self._open(50)

    @staticmethod
    def _open(members: int) -> Archive:
        return Archive(
            Path("a.zip"), max_file_bytes=99, max_members=members, max_bytes=99
        )


class TestTerminal:
    def test_a_foreign_name_moves_no_cursor(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def main() -> None:
            raise PipelineError("\x1b[2Ja\u202eb\r\nc")

        with pytest.raises(SystemExit):
            errors.run(main)
        assert capsys.readouterr().err == "error: \\x1b[2Ja\\u202eb c\n"

    def test_nor_in_the_log(self) -> None:
        code = (
            "from stages.core.errors import run; import logging;"
            "run(lambda: logging.getLogger('x').warning('a\\x1b[31m Ä\\x07'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stderr == "W x: a\\x1b[31m Ä\\x07\n"


class TestTelemetry:
    """Settled before the library that would send it is imported, and by DVC's file."""

    SETTINGS = ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED",
                "GX_ANALYTICS_ENABLED", "DVC_NO_ANALYTICS")  # fmt: skip

    def test_is_off_where_nobody_says_anything(self) -> None:
        code = (
            "import os, sys\n"
            "class Watch:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name in ('prefect', 'great_expectations'):\n"
            "            print(name, *(os.environ.get(s) for s in sys.argv[1:]))\n"
            "            raise ImportError\n"
            "sys.meta_path.insert(0, Watch())\n"
            "for load in ('import stages.flow',\n"
            "             'import stages.core.expectations as e; e.library()'):\n"
            "    try: exec(load)\n"
            "    except ImportError: pass\n"
        )
        env = {k: v for k, v in os.environ.items() if k not in self.SETTINGS}
        done = subprocess.run(
            [sys.executable, "-c", code, *self.SETTINGS[:3]],
            cwd=ROOT, env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        prefect, expectations = done.stdout.splitlines()
        assert prefect.split()[:3] == ["prefect", "1", "false"]
        assert expectations.split()[0] == "great_expectations"
        assert expectations.split()[3] == "false"

    def test_dvc_is_told_in_its_own_file(self) -> None:
        from dvc.config import Config

        config = Config(str(ROOT / ".dvc"), validate=True)
        assert config["core"]["analytics"] is False

    def test_make_tells_all_of_them(self) -> None:
        text = (ROOT / "Makefile").read_text("utf-8")
        for name in self.SETTINGS:
            assert re.search(rf"^export {name} := (1|false)$", text, re.M)


class TestMetadata:
    def test_nobody_hears_it(self, tmp_path, tiny_params, caplog, capfd) -> None:
        """The shards hold the source's own bytes; nothing else knows a patient."""
        folder = tmp_path / "theirs"
        source = {"ingest.source": "folder", "ingest.folder": str(folder)}
        params = tiny_params(**source)
        planted.lay(phantom.pairs(params.ingest), folder)
        with caplog.at_level(logging.DEBUG):
            run_to_verdict(params)
            shutil.copy(ROOT / paths.LOCK, ".")
            export(
                params.export,
                train=params.train,
                threshold=params.evaluate.threshold,
                flip_tta=params.evaluate.flip_tta,
                keep_components=params.evaluate.keep_components,
            )
        written = {path for path in paths.DATA.rglob("*") if path.is_file()}
        shards = set(paths.INGESTED.iterdir())
        assert planted.heard(shards)
        assert paths.EXPORT_SUMMARY in written
        assert not planted.heard(written - shards)
        said = "".join(capfd.readouterr()) + caplog.text
        assert not any(marker in said for marker in planted.MARKERS)
        pictures = list(paths.OVERLAYS.glob("*.png"))
        assert pictures
        for picture in pictures:
            kinds = planted.png_chunks(picture.read_bytes())
            assert kinds == {b"IHDR", b"IDAT", b"IEND"}


class TestKaggleToken:
    def test_is_nowhere_after_a_run(self, tmp_path, tiny_values) -> None:
        """Under DVC, with every log on, through a failure that is tried again."""
        keys = {"KAGGLE_KEY": "planted-key-0123", "KAGGLE_USERNAME": "planted-user"}
        root, home = tmp_path / "repository", tmp_path / "home"
        root.mkdir()
        (home / ".kaggle").mkdir(parents=True)
        (home / ".kaggle" / "access_token").write_text("KGAT_planted-in-a-file")
        (home / ".kaggle" / "kaggle.json").write_text(
            json.dumps({"username": "planted-user", "key": "planted-in-json"})
        )
        plan = Plan(root, with_overrides(tiny_values, {"ingest.source": "kaggle"}))
        with KaggleStandIn() as stand_in:
            stand_in.archives = {(DATASET, 5): archive(tmp_path / "theirs")}
            stand_in.failures = [(503, {})]
            env = {k: v for k, v in plan.environment().items() if k not in VARIABLES}
            env |= stand_in.environment(home) | keys | {"LOG_LEVEL": "DEBUG"}
            done = subprocess.run(
                [sys.executable, "-m", "dvc", "repro", "-v", "ingest"],
                cwd=root, env=env, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert stand_in.asked("archive.zip")
        plan.commit("with the data")
        objects = subprocess.run(
            ["git", "cat-file", "--batch-all-objects", "--batch"],
            cwd=root, check=True, capture_output=True,
        ).stdout  # fmt: skip
        assert b"with the data" in objects
        places = {"log": (done.stdout + done.stderr).encode(), "git": objects} | {
            str(path.relative_to(tmp_path)): path.read_bytes()
            for folder in (root, home / "cache")
            for path in folder.rglob("*")
            if path.is_file() and not path.is_relative_to(root / "tests")
        }
        assert any(".dvc/cache" in name for name in places)
        secrets = [TOKEN, *keys.values(), "planted-in", SECRET]
        found = [
            f"{secret} in {name}"
            for name, content in places.items()
            for secret in secrets
            if secret.encode() in content
            # Git holds this project's own tests, which plant them.
            and not (name == "git" and _is_only_in_tests(root, secret))
        ]
        assert not found


def _is_only_in_tests(root: Path, secret: str) -> bool:
    done = subprocess.run(
        ["git", "grep", "--name-only", "-F", secret, "HEAD", "--", ":!tests"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    return not done.stdout


def test_pages_escape_by_default() -> None:
    """A hostile name is shown, not run: every template but the card's escapes."""
    for template in (ROOT / "stages").rglob("*.jinja"):
        text = template.read_text("utf-8")
        if template.suffixes[0] == ".html":
            assert "safe" not in re.findall(r"\|\s*(\w+)", text), template
            assert "autoescape false" not in text


def test_the_model_of_trust_is_written_down() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    for word in ("make audit", "make fuzz", "safe mode", "loopback", "Kaggle",
                 "unaltered", "not defended", "report"):  # fmt: skip
        assert word in text, word
    for name in ("max_image_pixels", "max_file_bytes", "max_zip_members"):
        assert name in text
        assert name in (ROOT / paths.PARAMS).read_text("utf-8")


def test_every_package_is_pinned_by_hash() -> None:
    lock = (ROOT / paths.LOCK).read_text("utf-8")
    packages = re.findall(r"(?m)^([a-z0-9][\w.-]*)==\S+ (?:; .*)?\\\n    --hash", lock)
    assert len(packages) == len(re.findall(r"(?m)^[a-z0-9]", lock)) > 200
