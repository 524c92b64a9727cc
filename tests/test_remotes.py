"""Do results travel to a fresh clone: DVC's cache and its memory of runs, by S3?"""

import subprocess
import sys
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from stages.core import files
from tests.plan import Plan

BIN = Path(sys.executable).parent


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


def configure(plan: Plan, endpoint: str) -> None:
    """What `dvc remote add --local -d` writes, without a second's wait for each."""
    (plan.root / ".dvc" / "config.local").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n"
        f"    url = s3://store/lungs\n    endpointurl = {endpoint}\n"
    )


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
def test_a_remote_brings_outputs_to_a_fresh_clone(tiny_values, tmp_path, bucket):
    (tmp_path / "plan").mkdir()
    ingested = Plan(tmp_path / "plan", tiny_values)
    assert ingested.repro("ingest") == {"ingest": "run"}
    ingested.commit("data")
    configure(ingested, bucket)
    ingested.run("dvc", "push", "--run-cache")

    other = Plan.at(tmp_path / "clone")  # without a cache, as another person's
    ingested.git("clone", "-q", f"file://{ingested.root}", str(other.root))
    assert "no DVC remote is configured" in make_pull(other).stdout

    configure(other, "http://127.0.0.1:9")
    done = make_pull(other)
    assert done.returncode == 0  # what is missing can be made
    assert done.stderr.splitlines()[-1] == (
        "the DVC remote did not answer: missing outputs are made here"
    )
    assert "Traceback" not in done.stderr
    assert not (other.root / "data/ingested").exists()

    configure(other, bucket)
    done = make_pull(other)
    assert done.returncode == 0, done.stderr
    assert other.repro("ingest") == {"ingest": "unchanged"}
    assert files.sha256(other.root / "data/ingested") == files.sha256(
        ingested.root / "data/ingested"
    )
    assert not other.git("status", "--porcelain", "dvc.lock", "data")
