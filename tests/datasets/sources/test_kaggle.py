"""Is Kaggle asked as it wants to be, and is every refusal of its one sentence?"""

import io
import random
import re
import resource
import zipfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from benchmarks import processes
from stages.core import files
from stages.core.errors import NetworkError, PipelineError
from stages.datasets.sources import kaggle
from tests.conftest import TINY, radiography_tree, run_python
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


def zipped(top: Path, extra: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(p for p in top.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(top).as_posix())
        file.writestr("metadata.xlsx", extra)
    return buffer.getvalue()


@pytest.fixture
def stand_in(tmp_path):
    with KaggleStandIn() as server:
        radiography_tree(tmp_path / "theirs", {"COVID": 2, "Normal": 2})
        # Downloads are kept by the megabyte: this one is a few of them.
        data = zipped(tmp_path / "theirs", random.Random(0).randbytes(3 * MIB))
        server.archives = {(DATASET, 4): b"older", (DATASET, 5): data}
        yield server


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def pointed(stand_in, home, monkeypatch):
    """This very process, pointed at the stand-in and without patience."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in stand_in.environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kaggle, "WAITS_S", (0.01, 0.01, 0.01))
    return stand_in


@pytest.fixture
def fetch(section):
    return lambda **changes: kaggle.fetch(section("ingest", **changes).kaggle)


@pytest.fixture
def run_stage(tmp_path):
    """Runs `python -m stages.ingest` in a process that knows its environment only."""

    def run(environment: dict[str, str], **options: Any) -> CompletedProcess[str]:
        processes.write_params(TINY | {"ingest.source": "kaggle"}, tmp_path)
        done = run_python("-m", "stages.ingest", **environment, **options)
        assert TOKEN not in done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done

    return run


def test_it_downloads_once_and_then_asks_nothing(stand_in, home, tmp_path, run_stage):
    first = run_stage(stand_in.environment(home))
    assert first.returncode == 0, first.stderr
    before = files.sha256(tmp_path / "data")
    summary = files.read_json(tmp_path / "data" / "ingested.json")
    assert (summary["num_pairs"], summary["version"]) == (4, 5)
    assert summary["dataset"] == "COVID-19 Radiography Database"
    assert [(r.method, r.host, r.path) for r in stand_in.requests] == [
        ("POST", "localhost:7777", f"{API}/DownloadDataset"),
        ("GET", STORAGE, f"/{DATASET}/5/archive.zip"),
    ]
    assert stand_in.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in stand_in.requests[1].headers
    # Progress, size and speed.
    assert re.search(r"100%.* 3\.\d+M/3\.\d+M .*B/s\]", first.stderr)
    # One copy on the disk: the zip as it came.
    (copy,) = (p for p in home.rglob("*") if p.is_file())
    assert copy.read_bytes() == stand_in.archives[DATASET, 5]

    stand_in.requests.clear()
    offline = stand_in.environment(home, token=None) | {"HTTP_PROXY": "http://[::]:9"}
    second = run_stage(offline)
    assert second.returncode == 0, second.stderr
    assert stand_in.requests == []
    assert files.sha256(tmp_path / "data") == before


def test_a_full_disk_is_one_sentence(stand_in, home, tmp_path, run_stage):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    done = run_stage(stand_in.environment(home), preexec_fn=limited)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: no space left in {home}/cache")
    assert not (tmp_path / "data" / "ingested").exists()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (".kaggle/access_token", TOKEN),
        (".kaggle/kaggle.json", '{"username": "nobody", "key": "0123"}'),
    ],
)
def test_saved_credentials_are_used(pointed, home, fetch, monkeypatch, place, text):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    # Its default is settled when kagglehub is imported.
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / ".kaggle"))
    (home / ".kaggle").mkdir()
    (home / place).write_text(text)
    pointed.failures = [503] * 4
    with pytest.raises(PipelineError, match="answered 503"):
        fetch()
    sent = pointed.requests[0].headers["authorization"]
    assert sent == (f"Bearer {TOKEN}" if text == TOKEN else "Basic bm9ib2R5OjAxMjM=")


@pytest.mark.parametrize(
    ("token", "saved", "sentence"),
    [
        ("", "", "needs credentials: set KAGGLE_API_TOKEN"),
        ("", "secret-0123", "credentials are not valid"),
        ("secret" * 100, "", "cannot be read"),  # too long for a path
        (TOKEN[::-1], "", r"does not accept these credentials \(401\)"),
    ],
)
def test_missing_or_bad_credentials_are_one_sentence_that_does_not_show_them(
    pointed, home, fetch, monkeypatch, token, saved, sentence
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
    if saved:
        (home / "kaggle.json").write_text(saved)
    with pytest.raises(PipelineError, match=sentence) as error:
        fetch()
    assert not isinstance(error.value, NetworkError)
    assert "secret" not in str(error.value)
    assert TOKEN[::-1] not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize(
    ("failing", "sentence"),
    [
        ({"failures": [429] * 4}, "answered 429, after 4 tries"),
        ({"failures": [503] * 4}, "answered 503, after 4 tries"),
        ({"silent_s": 0.5}, "no answer in time"),
        ({"corrupt": 99}, "the download is damaged"),
        (
            {"checksum": False, "archives": {(DATASET, 5): b"<html>sign in</html>"}},
            "the download is damaged",
        ),
    ],
)
def test_it_tries_again_and_gives_up_in_one_sentence(
    pointed, home, fetch, monkeypatch, failing, sentence
):
    if "silent_s" in failing:
        monkeypatch.setattr(kaggle, "TIMEOUT_S", (5.0, 0.05))
    for name, value in failing.items():
        setattr(pointed, name, value)
    with pytest.raises(NetworkError, match=sentence):
        fetch()
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_no_network_is_one_sentence(pointed, fetch, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(NetworkError, match="the connection failed"):
        fetch()


@pytest.mark.parametrize("status", [429, 502])
def test_trouble_that_passes_is_got_over(pointed, fetch, status):
    pointed.failures = [status] * 2
    pointed.corrupt = 1
    path = fetch()
    assert path.read_bytes() == pointed.archives[DATASET, 5]


def test_the_next_try_and_the_next_run_go_on_from_what_was_downloaded(pointed, fetch):
    # Each try asks for all, then for the rest of what it has.
    pointed.cut_after = [3 * MIB // 2, *(6 * [0])]
    with pytest.raises(PipelineError, match="it continues the download"):
        fetch()
    ranges = [r.headers.get("range") for r in pointed.asked("archive.zip")]
    assert ranges[:3] == [None, None, f"bytes={MIB}-"]
    pointed.cut_after, pointed.requests = [], []
    path = fetch()
    assert path.read_bytes() == pointed.archives[DATASET, 5]
    ranges = [r.headers.get("range") for r in pointed.asked("archive.zip")]
    assert ranges == [None, f"bytes={MIB}-"]


def test_what_kagglehub_unpacked_earlier_is_read(pointed, home, section):
    cache = home / "cache" / "datasets" / DATASET
    radiography_tree(cache / "versions" / "5", {"COVID": 3})
    (cache / "5.complete").touch()
    assert len(kaggle.pairs(section("ingest", source="kaggle"))) == 3
    assert pointed.requests == []


@pytest.mark.parametrize(
    ("changes", "needs_consent", "sentence"),
    [
        ({"kaggle.version": 6}, False, f"Kaggle has no {DATASET}/versions/6 .404."),
        ({"kaggle.dataset": "no/such"}, False, r"correct ingest\.kaggle\.dataset or"),
        ({}, True, f"open https://www.kaggle.com/datasets/{DATASET} and accept"),
    ],
)
def test_what_kaggle_refuses_is_asked_once(
    pointed, fetch, changes, needs_consent, sentence
):
    pointed.needs_consent = needs_consent
    with pytest.raises(PipelineError, match=sentence):
        fetch(**changes)
    assert len(pointed.requests) == 1


def test_the_newest_version(pointed, section):
    params = section("ingest", **{"kaggle.version": 4})
    assert kaggle.newest_version(params.kaggle) == 5


def test_another_data_set_is_not_called_the_layouts(section):
    facts = kaggle.describe(section("ingest", **{"kaggle.dataset": "some/one"}))
    assert facts.dataset == "some/one"
    assert facts.licence == "see the data set's page"
    assert facts.page == "https://www.kaggle.com/datasets/some/one"
    assert facts.citation == ""
