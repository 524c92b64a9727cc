"""Do results travel: DVC's cache and its memory of runs, to a folder and to S3?"""

import subprocess
import sys
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from ruamel.yaml import YAML

from stages.core import files
from tests.conftest import ROOT, TINY, with_overrides
from tests.plan import Plan

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, shipped_values):
    """A repository in which ingest has run."""
    values = with_overrides(shipped_values, TINY)
    plan = Plan(tmp_path_factory.mktemp("plan"), values)
    assert plan.repro("ingest") == {"ingest": "run"}
    plan.commit("data")
    return plan


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server on loopback with one bucket; its address."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "loopback")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="store")
    yield address
    server.stop()


def configure(plan: Plan, url: str, **options: str) -> None:
    """What `dvc remote add --local -d` writes, without a second's wait for each."""
    lines = [f"    {name} = {value}" for name, value in {"url": url, **options}.items()]
    (plan.root / ".dvc" / "config.local").write_text(
        "\n".join(["[core]", "    remote = store", "['remote \"store\"']", *lines, ""])
    )


def clone(plan: Plan, folder: Path) -> Plan:
    """A clone without a cache, as another person's."""
    plan.git("clone", "-q", f"file://{plan.root}", str(folder))
    return Plan.at(folder)


def make_pull(plan: Plan) -> subprocess.CompletedProcess[str]:
    """Runs `make pull` with this environment instead of one that it would make."""
    return subprocess.run(
        ["make", "pull", "VENV=none", f"BIN={BIN}", "-o", "none/.complete"],
        cwd=plan.root,
        env=plan.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_folder_brings_outputs_to_a_fresh_clone(ingested, tmp_path):
    store = tmp_path / "store"
    page = (ROOT / "docs/howto/remotes.md").read_text("utf-8")
    assert "dvc remote add -d store /mnt/store" in page
    ingested.run("dvc", "remote", "add", "--local", "-d", "store", str(store))
    ingested.run("dvc", "push", "--run-cache")

    other = clone(ingested, tmp_path / "clone")
    done = make_pull(other)
    assert "no DVC remote is configured" in done.stdout
    assert not (other.root / "data/ingested").exists()

    configure(other, str(store))
    done = make_pull(other)
    assert done.returncode == 0, done.stderr
    assert files.sha256(other.root / "data/ingested") == files.sha256(
        ingested.root / "data/ingested"
    )
    assert other.repro("ingest") == {"ingest": "unchanged"}


@pytest.mark.slow
def test_s3_brings_outputs_to_a_fresh_clone(ingested, tmp_path, bucket):
    configure(ingested, "s3://store/lungs", endpointurl=bucket)
    ingested.run("dvc", "push", "--run-cache")

    other = clone(ingested, tmp_path / "clone")
    configure(other, "s3://store/lungs", endpointurl=bucket)
    done = make_pull(other)
    assert done.returncode == 0, done.stderr
    assert other.repro("ingest") == {"ingest": "unchanged"}
    assert files.sha256(other.root / "data/ingested") == files.sha256(
        ingested.root / "data/ingested"
    )
    assert not other.git("status", "--porcelain", "dvc.lock", "data")


@pytest.mark.slow
def test_a_remote_that_is_not_there_is_one_sentence(ingested, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "loopback")
    other = clone(ingested, tmp_path / "clone")
    configure(other, "s3://store/lungs", endpointurl="http://127.0.0.1:9")
    done = make_pull(other)
    assert done.returncode == 0  # what is missing can be made
    assert done.stderr.splitlines()[-1] == (
        "the DVC remote did not answer: missing outputs are made here"
    )
    assert "Traceback" not in done.stderr
    assert YAML(typ="safe").load(other.root / "dvc.lock")["stages"]["ingest"]
