"""Is Kaggle asked as it wants to be, and is every refusal of its one sentence?"""

import io
import logging
import os
import random
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.core import files, paths, studies
from stages.core.errors import NetworkError, PipelineError
from stages.core.params import IngestParams, Params, parse_params
from stages.datasets.sources import kaggle
from stages.ingest import ingest
from tests import trees
from tests.conftest import ROOT, radiography_tree, with_overrides
from tests.kaggle_standin import API, SECRET, STORAGE, TOKEN, KaggleStandIn

DATASET = "tawsifurrahman/covid19-radiography-database"
MIB = 2**20
VARIABLES = (
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_API_TOKEN",
    "KAGGLE_CONFIG_DIR",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
)


def archive(root: Path, count: int = 2) -> bytes:
    top = radiography_tree(root, {"COVID": count, "Normal": count})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(p for p in top.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(root).as_posix())
        # Downloads are kept by the megabyte: this one is a few of them.
        file.writestr("metadata.xlsx", random.Random(0).randbytes(3 * MIB))
    return buffer.getvalue()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[KaggleStandIn]:
    with KaggleStandIn() as server:
        data = archive(tmp_path / "theirs")
        server.archives = {(DATASET, 4): b"older", (DATASET, 5): data}
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def pointed(
    stand_in: KaggleStandIn, home: Path, monkeypatch: pytest.MonkeyPatch
) -> KaggleStandIn:
    """This very process, pointed at the stand-in and without patience."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in stand_in.environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kaggle, "WAITS_S", (0.01, 0.01, 0.01))
    return stand_in


@pytest.fixture
def ingest_params(tiny_params: Callable[..., Params]) -> Callable[..., IngestParams]:
    def build(**overrides: Any) -> IngestParams:
        values = {f"ingest.{key}": value for key, value in overrides.items()}
        return tiny_params(**{"ingest.source": "kaggle", **values}).ingest

    return build


Build = Callable[..., IngestParams]


@pytest.fixture
def run_stage(
    tmp_path: Path, tiny_values: dict[str, Any]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m stages.ingest` in a process that knows its environment only."""

    def run(
        environment: dict[str, str],
        version: int = 5,
        dataset: str = DATASET,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        values = with_overrides(
            tiny_values,
            {
                "ingest.source": "kaggle",
                "ingest.kaggle.version": version,
                "ingest.kaggle.dataset": dataset,
            },
        )
        with (tmp_path / "params.yaml").open("w") as file:
            YAML(typ="safe", pure=True).dump(values, file)
        inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        return subprocess.run(
            [sys.executable, "-m", "stages.ingest"],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            **options,
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def sentence_of(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one sentence a failed run ends in."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert TOKEN not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    return last


class TestProcess:
    def test_downloads_once_and_then_asks_nothing(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        first = run_stage(stand_in.environment(home))
        assert first.returncode == 0, first.stderr
        before = files.sha256(tmp_path / "data")
        summary = files.read_json(tmp_path / "data" / "ingested.json")
        assert summary["num_pairs"] == 4
        assert summary["version"] == 5
        assert summary["licence"] == stand_in.licence
        assert summary["dataset"] == "COVID-19 Radiography Database"
        assert [(r.method, r.host, r.path) for r in stand_in.requests] == [
            ("POST", "localhost:7777", f"{API}/DownloadDataset"),
            ("GET", STORAGE, f"/{DATASET}/5/archive.zip"),
            ("POST", "localhost:7777", f"{API}/GetDataset"),
        ]
        assert stand_in.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in stand_in.requests[1].headers
        # How much has come, of how much, and how fast.
        assert re.search(r"100%.* 3\.\d+M/3\.\d+M .*B/s\]", first.stderr)
        for done in (first.stdout, first.stderr):
            assert TOKEN not in done
            assert SECRET not in done
        # One copy on the disk: the zip as it came.
        (copy,) = (p for p in home.rglob("*") if p.is_file() and p.suffix != ".json")
        assert copy.read_bytes() == stand_in.archives[DATASET, 5]

        stand_in.requests.clear()
        offline = {
            **stand_in.environment(home, token=None),
            "HTTP_PROXY": "http://[::]:9",
        }
        second = run_stage(offline)
        assert second.returncode == 0, second.stderr
        assert stand_in.requests == []
        assert files.sha256(tmp_path / "data") == before

    def test_goes_on_after_the_connection_breaks(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        stand_in.cut_after = [5 * MIB // 2]
        done = run_stage(stand_in.environment(home))
        assert done.returncode == 0, done.stderr
        assert "trying again in 1 s" in done.stderr
        ranges = [r.headers.get("range") for r in stand_in.asked("archive.zip")]
        assert ranges == [None, None, f"bytes={2 * MIB}-"]
        summary = files.read_json(tmp_path / "data" / "ingested.json")
        assert summary["num_pairs"] == 4
        assert summary["num_unreadable"] == 0

    def test_what_comes_spoilt_or_not_at_once_comes_in_the_end(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        stand_in.failures = [(429, {"Retry-After": "2"})]
        stand_in.corrupt = 1
        done = run_stage(stand_in.environment(home))
        assert done.returncode == 0, done.stderr
        assert "answered 429; trying again in 2 s" in done.stderr
        assert "not what was sent; trying again in 4 s" in done.stderr
        summary = files.read_json(tmp_path / "data" / "ingested.json")
        assert summary["num_unreadable"] == 0

    def test_a_server_in_trouble_is_asked_again(
        self, stand_in: KaggleStandIn, home: Path, run_stage: Run
    ) -> None:
        stand_in.failures = [(503, {})]
        done = run_stage(stand_in.environment(home))
        assert done.returncode == 0, done.stderr
        assert "answered 503; trying again in 1 s" in done.stderr

    @pytest.mark.nightly  # it waits as long as a person would have to
    def test_no_network_and_nothing_cached(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        nowhere = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:1")
        done = run_stage({**stand_in.environment(home), **nowhere})
        sentence = sentence_of(done, NetworkError.exit_code)
        assert "the connection failed" in sentence
        assert "see to the network" in sentence
        assert stand_in.requests == []
        assert not (tmp_path / "data" / "ingested").exists()

    @pytest.mark.parametrize(
        ("dataset", "version", "token", "words"),
        [
            (
                *(DATASET, 9, TOKEN),
                ["(404)", "correct ingest.kaggle.version; the newest is 5"],
            ),
            (
                *("no/such", 5, TOKEN),
                ["(404)", "correct ingest.kaggle.dataset; its page would be"],
            ),
            (
                *(DATASET, 5, TOKEN[::-1]),
                ["(401)", "https://www.kaggle.com/settings"],
            ),
        ],
    )
    def test_what_kaggle_refuses(
        self,
        stand_in: KaggleStandIn,
        home: Path,
        tmp_path: Path,
        run_stage: Run,
        dataset: str,
        version: int,
        token: str,
        words: list[str],
    ) -> None:
        done = run_stage(stand_in.environment(home, token=token), version, dataset)
        sentence = sentence_of(done)
        assert all(word in sentence for word in words)
        assert token not in done.stderr
        assert not (tmp_path / "data" / "ingested").exists()

    def test_without_credentials(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        done = run_stage(stand_in.environment(home, token=None))
        sentence = sentence_of(done)
        for place in (
            "KAGGLE_API_TOKEN",
            "~/.kaggle/access_token",
            "KAGGLE_USERNAME and KAGGLE_KEY",
            "kaggle.json",
        ):
            assert place in sentence
        assert stand_in.requests == []
        assert not (tmp_path / "data" / "ingested").exists()

    def test_terms_not_accepted(
        self, stand_in: KaggleStandIn, home: Path, run_stage: Run
    ) -> None:
        stand_in.needs_consent = True
        sentence = sentence_of(run_stage(stand_in.environment(home)))
        assert "(403)" in sentence
        assert f"open https://www.kaggle.com/datasets/{DATASET}" in sentence

    def test_a_full_disk(
        self, stand_in: KaggleStandIn, home: Path, tmp_path: Path, run_stage: Run
    ) -> None:
        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

        done = run_stage(stand_in.environment(home), preexec_fn=limited)
        sentence = sentence_of(done)
        assert f"no space left in {home}/cache" in sentence
        assert "KAGGLEHUB_CACHE" in sentence
        assert not (tmp_path / "data" / "ingested").exists()


@pytest.mark.parametrize("name", studies.names())
def test_each_study_reads_its_archive_as_kaggle_serves_it(
    name: str, pointed: KaggleStandIn, tmp_path: Path, shipped_values: dict[str, Any]
) -> None:
    study = studies.load(name)
    params = parse_params(with_overrides(shipped_values, dict(study.params))).ingest
    trees.WRITERS[params.layout](tmp_path / "theirs" / name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted((tmp_path / "theirs" / name).rglob("*")):
            file.write(path, path.relative_to(tmp_path / "theirs" / name).as_posix())
    kept = params.kaggle
    pointed.archives[kept.dataset, kept.version] = buffer.getvalue()
    pointed.licence = f"the licence of {name}"
    ingest(params)
    facts = files.read_json(paths.INGESTED_SUMMARY)
    assert facts["num_pairs"] == {"article": 5, "radiography": 10}.get(
        name, 13 if name == "covid_qu_ex" else 24
    )
    assert facts["num_images_without_mask"] == facts["num_masks_without_image"] == 0
    assert facts["licence"] == f"the licence of {name}"
    assert facts["version"] == kept.version
    assert facts["page"] == f"https://www.kaggle.com/datasets/{kept.dataset}"
    assert facts["citation"]


class TestCredentials:
    @pytest.mark.parametrize(
        ("place", "text"),
        [
            (".kaggle/access_token", TOKEN),
            (".kaggle/kaggle.json", '{"username": "nobody", "key": "0123"}'),
        ],
    )
    def test_saved_ones_are_used(
        self,
        pointed: KaggleStandIn,
        home: Path,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
        place: str,
        text: str,
    ) -> None:
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        # Its default is settled when kagglehub is imported.
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / ".kaggle"))
        (home / ".kaggle").mkdir()
        (home / place).write_text(text)
        pointed.failures = [(503, {})] * 4
        with pytest.raises(PipelineError, match="answered 503"):
            kaggle.fetch(ingest_params().kaggle)
        sent = pointed.requests[0].headers["authorization"]
        assert sent == (
            f"Bearer {TOKEN}" if text == TOKEN else "Basic bm9ib2R5OjAxMjM="
        )

    @pytest.mark.parametrize("text", ["{", "{}", "secret-0123"])
    def test_a_spoilt_file_is_one_sentence(
        self,
        pointed: KaggleStandIn,
        home: Path,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
    ) -> None:
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
        (home / "kaggle.json").write_text(text)
        with pytest.raises(PipelineError, match="credentials are not valid") as error:
            kaggle.fetch(ingest_params().kaggle)
        assert "secret-0123" not in str(error.value)

    def test_a_token_too_long_to_be_a_path_is_not_shown(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("KAGGLE_API_TOKEN", "secret" * 100)
        with pytest.raises(PipelineError, match="cannot be read") as error:
            kaggle.fetch(ingest_params().kaggle)
        assert "secret" not in str(error.value)
        assert error.value.__suppress_context__

    def test_refused_ones_are_one_sentence(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN[::-1])
        with pytest.raises(PipelineError) as error:
            kaggle.fetch(ingest_params().kaggle)
        assert "does not accept these credentials (401)" in str(error.value)
        assert not isinstance(error.value, NetworkError)
        assert TOKEN[::-1] not in str(error.value)
        assert len(pointed.requests) == 1


class TestPatience:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_tries_again(
        self, pointed: KaggleStandIn, ingest_params: Build, status: int
    ) -> None:
        pointed.failures = [(status, {})] * 3
        assert len(kaggle.pairs(ingest_params())) == 4

    @pytest.mark.parametrize(
        ("status", "sentence"),
        [(429, "asked too often (429)"), (503, "answered 503, after 4 tries")],
    )
    def test_gives_up(
        self, pointed: KaggleStandIn, ingest_params: Build, status: int, sentence: str
    ) -> None:
        pointed.failures = [(status, {})] * 4
        with pytest.raises(NetworkError) as error:
            kaggle.fetch(ingest_params().kaggle)
        assert sentence in str(error.value)
        assert len(pointed.requests) == 4

    @pytest.mark.parametrize(
        ("asked", "waited"), [("7", 7), ("9999", 120), ("x", 0.01)]
    )
    def test_waits_as_long_as_it_is_asked_to(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
        asked: str,
        waited: float,
    ) -> None:
        waits: list[float] = []
        monkeypatch.setattr(kaggle, "sleep", waits.append)
        pointed.failures = [(429, {"Retry-After": asked})]
        kaggle.fetch(ingest_params().kaggle)
        assert waits == [waited]

    def test_no_network_is_one_sentence(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        with pytest.raises(NetworkError, match="the connection failed") as error:
            kaggle.fetch(ingest_params().kaggle)
        assert "see to the network" in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_silent_server_is_given_up(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(kaggle, "TIMEOUT_S", (5.0, 0.05))
        pointed.silent_s = 0.5
        with pytest.raises(PipelineError, match="no answer in time, after 4 tries"):
            kaggle.fetch(ingest_params().kaggle)


class TestTransfer:
    def test_a_corrupted_one_is_found_and_done_again(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        pointed.corrupt = 1
        path = kaggle.fetch(ingest_params().kaggle)
        assert path.read_bytes() == pointed.archives[DATASET, 5]

    def test_one_that_stays_corrupted_leaves_nothing(
        self, pointed: KaggleStandIn, home: Path, ingest_params: Build
    ) -> None:
        pointed.corrupt = 99
        with pytest.raises(PipelineError, match="what came is not what was sent"):
            kaggle.fetch(ingest_params().kaggle)
        assert [path for path in home.rglob("*") if path.is_file()] == []

    def test_what_is_no_zip_is_found_without_a_checksum(
        self, pointed: KaggleStandIn, home: Path, ingest_params: Build
    ) -> None:
        pointed.checksum = False
        pointed.archives[DATASET, 5] = b"<html>please sign in</html>"
        with pytest.raises(PipelineError, match="what came is not what was sent"):
            kaggle.fetch(ingest_params().kaggle)
        assert [path for path in home.rglob("*") if path.is_file()] == []

    def test_the_next_run_goes_on_from_what_was_downloaded(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        # Each try asks for all, then for the rest of what it has.
        pointed.cut_after = [3 * MIB // 2, *(6 * [0])]
        with pytest.raises(PipelineError, match="goes on from what was downloaded"):
            kaggle.fetch(ingest_params().kaggle)
        pointed.cut_after, pointed.requests = [], []
        path = kaggle.fetch(ingest_params().kaggle)
        assert path.read_bytes() == pointed.archives[DATASET, 5]
        ranges = [r.headers.get("range") for r in pointed.asked("archive.zip")]
        assert ranges == [None, f"bytes={MIB}-"]

    def test_what_kagglehub_unpacked_earlier_is_read(
        self, pointed: KaggleStandIn, home: Path, ingest_params: Build
    ) -> None:
        cache = home / "cache" / "datasets" / DATASET
        radiography_tree(cache / "versions" / "5", {"COVID": 3})
        (cache / "5.complete").touch()
        assert len(kaggle.pairs(ingest_params())) == 3
        assert pointed.requests == []


class TestFacts:
    def test_no_such_version(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        with pytest.raises(PipelineError) as error:
            kaggle.fetch(ingest_params(**{"kaggle.version": 6}).kaggle)
        assert f"Kaggle has no {DATASET}/versions/6 (404)" in str(error.value)
        assert "correct ingest.kaggle.version; the newest is 5" in str(error.value)

    def test_no_such_data_set(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        params = ingest_params(**{"kaggle.dataset": "no/such"})
        with pytest.raises(PipelineError, match=r"correct ingest\.kaggle\.dataset"):
            kaggle.fetch(params.kaggle)

    def test_the_newest_version(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        assert kaggle.newest_version(ingest_params(**{"kaggle.version": 4}).kaggle) == 5

    def test_another_data_set_is_not_called_the_layouts(
        self, pointed: KaggleStandIn, ingest_params: Build
    ) -> None:
        pointed.licence = "CC0-1.0"
        pointed.archives["some/one", 1] = pointed.archives[DATASET, 5]
        params = ingest_params(**{"kaggle.dataset": "some/one", "kaggle.version": 1})
        assert "not reported" in kaggle.describe(params)["licence"]
        kaggle.fetch(params.kaggle)
        facts = kaggle.describe(params)
        assert facts["dataset"] == "some/one"
        assert facts["licence"] == "CC0-1.0"
        assert facts["citation"] == ""

    def test_a_licence_that_is_not_reported_is_the_layouts(
        self,
        pointed: KaggleStandIn,
        ingest_params: Build,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        pointed.licence = ""
        with caplog.at_level(logging.WARNING):
            kaggle.fetch(ingest_params().kaggle)
        assert "did not report a licence" in caplog.text
        facts = kaggle.describe(ingest_params())
        assert facts["licence"] == "Data files © Original Authors"
        assert facts["version"] == 5
