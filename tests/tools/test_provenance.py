import json
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.core import dvc_files, files, paths, provenance
from stages.core.errors import PipelineError
from stages.tools.provenance import check, commits
from tests.conftest import ROOT
from tests.core.test_provenance import small_onnx


def git(*arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


def commit(subject: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", subject)


@pytest.fixture
def checkout(isolated):
    """A repository whose one commit recorded an exported file; returns the file."""
    paths.PLAN.touch()
    for number, path in enumerate(provenance.INPUTS.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"input {number}")
    facts = provenance.facts(data={}, inputs=provenance.INPUTS, params={"train": {}})
    paths.EXPORT.mkdir()
    path = small_onnx(paths.EXPORT / "unet.onnx", facts)
    record(path)
    git("init", "--quiet")
    Repo.init(".").close()
    stored = dvc_files.stored(dvc_files.cache(), dvc_files.md5(paths.EXPORT_SUMMARY))
    stored.parent.mkdir(parents=True)
    stored.write_bytes(paths.EXPORT_SUMMARY.read_bytes())
    commit("the good model")
    return path


def record(path) -> None:
    """Writes what export and DVC record of it."""
    formats = {"onnx": {"sha256": files.sha256(path)}}
    paths.EXPORT_SUMMARY.write_text(json.dumps({"formats": formats}))
    deps = [
        {"path": str(p), "md5": provenance.of_file(p)["md5"], "size": 1}
        for p in [*provenance.INPUTS.values(), paths.PLAN]
    ]
    summary = paths.EXPORT_SUMMARY
    outs = [{"path": str(summary), "md5": dvc_files.md5(summary)}]
    YAML().dump({"stages": {"export": {"deps": deps, "outs": outs}}}, paths.DVC_LOCK)


def test_a_checkouts_own_file(checkout, capsys):
    check(checkout)
    printed = capsys.readouterr().out
    facts, _ = json.JSONDecoder().raw_decode(printed)
    assert facts == provenance.read(checkout)
    assert printed.count("  same ") == len(provenance.INPUTS)
    assert "data/export.json of this checkout lists this file" in printed
    assert "the good model: this file" in printed


def test_a_file_of_an_earlier_commit(checkout, tmp_path, capsys):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(checkout.read_bytes())
    paths.METRICS.write_text("other metrics")
    paths.VERDICT.unlink()
    paths.EXPORT_SUMMARY.write_text('{"formats": {}}')
    (tmp_path / "dvc.lock").write_text("stages: {}")
    commit("another model")
    check(kept)
    printed = capsys.readouterr().out
    assert "differs  data/evaluation/metrics.json" in printed
    assert "missing  data/gate/verdict.json" in printed
    assert "data/export.json of this checkout lacks this file" in printed
    assert "the good model: this file" in printed
    assert "another model" not in printed


def test_an_altered_file_is_refused(checkout, capsys):
    """Its weights were changed, its provenance was not."""
    import onnx

    model = onnx.load(str(checkout))
    model.graph.name = "altered"
    onnx.save(model, str(checkout))
    with pytest.raises(PipelineError, match=r"nor any commit knows .*unet\.onnx"):
        check(checkout)
    assert "the good model: its inputs, but another file" in capsys.readouterr().out


def test_commits_without_or_with_broken_records_are_passed_over(checkout):
    Path("dvc.lock").write_text("a: [")
    paths.EXPORT_SUMMARY.unlink()
    commit("broken")
    facts = provenance.read(checkout)
    found = list(commits(facts, files.sha256(checkout)))
    assert [(c.has_file, c.has_inputs) for c in found] == [(True, True)]


def test_without_a_checkout_the_file_speaks_alone(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "m.onnx").write_bytes(checkout.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "stages.cli", "provenance", "m.onnx"],
        cwd=elsewhere,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert files.sha256(checkout) in done.stdout
    assert "no checkout" in done.stdout
