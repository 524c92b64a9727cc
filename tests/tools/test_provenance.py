import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core import dvc_files, files, paths, provenance
from stages.core.errors import PipelineError
from stages.tools.provenance import check, commits
from tests.conftest import run_python
from tests.core.test_provenance import small_onnx
from tests.plan import Plan

ONNX = paths.EXPORT / "unet.onnx"


@pytest.fixture
def plan(isolated):
    """A repository with a commit that recorded an exported file."""
    for number, path in enumerate(provenance.INPUTS.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"input {number}")
    plan = Plan.small(isolated, {})
    facts = provenance.facts(data={}, inputs=provenance.INPUTS, params={"train": {}})
    paths.EXPORT.mkdir()
    record(small_onnx(ONNX, facts))
    stored = dvc_files.stored(dvc_files.cache(), dvc_files.md5(paths.EXPORT_SUMMARY))
    stored.parent.mkdir(parents=True)
    stored.write_bytes(paths.EXPORT_SUMMARY.read_bytes())
    plan.commit("the good model")
    return plan


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


def test_a_checkouts_own_file(plan, capsys):
    check(ONNX)
    printed = capsys.readouterr().out
    facts, _ = json.JSONDecoder().raw_decode(printed)
    assert facts == provenance.read(ONNX)
    assert printed.count("  same ") == len(provenance.INPUTS)
    assert "data/export.json of this checkout lists this file" in printed
    assert "the good model: this file" in printed


def test_a_file_of_an_earlier_commit(plan, tmp_path, capsys):
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(ONNX.read_bytes())
    paths.METRICS.write_text("other metrics")
    paths.VERDICT.unlink()
    paths.EXPORT_SUMMARY.write_text('{"formats": {}}')
    (tmp_path / "dvc.lock").write_text("stages: {}")
    plan.commit("another model")
    check(kept)
    printed = capsys.readouterr().out
    assert "differs  data/evaluation/metrics.json" in printed
    assert "missing  data/gate/verdict.json" in printed
    assert "data/export.json of this checkout lacks this file" in printed
    assert "the good model: this file" in printed
    assert "another model" not in printed


def test_an_altered_file_is_refused(plan, capsys):
    """Its weights were changed, its provenance was not."""
    import onnx

    model = onnx.load(str(ONNX))
    model.graph.name = "altered"
    onnx.save(model, str(ONNX))
    with pytest.raises(PipelineError, match=r"nor any commit knows .*unet\.onnx"):
        check(ONNX)
    assert "the good model: its inputs, but another file" in capsys.readouterr().out


def test_commits_without_or_with_broken_records_are_passed_over(plan):
    Path("dvc.lock").write_text("a: [")
    paths.EXPORT_SUMMARY.unlink()
    plan.commit("broken")
    facts = provenance.read(ONNX)
    found = list(commits(facts, files.sha256(ONNX)))
    assert [(c.has_file, c.has_inputs) for c in found] == [(True, True)]


def test_without_a_checkout_the_file_speaks_alone(plan, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "m.onnx").write_bytes(ONNX.read_bytes())
    done = run_python("-m", "stages.cli", "provenance", "m.onnx", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert files.sha256(ONNX) in done.stdout
    assert "no checkout" in done.stdout
