import json

import pytest

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.tools.verify import Output, report, verify
from tests.plan import Plan


@pytest.fixture
def plan(tmp_path, tiny_values, monkeypatch) -> Plan:
    """A checkout in which gate, the cheapest stage, has something to read."""
    root = tmp_path / "checkout"
    root.mkdir()
    plan = Plan(root, tiny_values)
    monkeypatch.chdir(root)
    files.write_json(paths.METRICS, {"dice": {"mean": 0.5}})
    return plan


def test_a_stage_built_twice_is_the_same_until_it_is_not(plan, tmp_path, capsys):
    # Not committed, so that it comes from the checkout.
    assert plan.git("status", "--porcelain")
    outputs = verify("gate", work=tmp_path / "sound")
    report(outputs)
    assert [output.path for output in outputs] == [paths.VERDICT]
    built = tmp_path / "sound" / "first" / paths.VERDICT
    assert outputs[0].sha256 == files.sha256(built)
    assert (outputs[0].difference, outputs[0].recorded) == ("", "no record")
    assert not paths.VERDICT.exists()
    assert "all 1 outputs are the same, byte for byte" in capsys.readouterr().out

    # What that build recorded, and an address in an output.
    lock = tmp_path / "sound" / "first" / "dvc.lock"
    (plan.root / "dvc.lock").write_bytes(lock.read_bytes())
    files.write_json(paths.VERDICT, json.loads(built.read_text()))
    code = plan.root / "stages" / "gate.py"
    text = code.read_text("utf-8")
    assert '"num_checks": len(checks)' in text
    # Python hashes text otherwise in each process.
    text = text.replace('"num_checks": len(checks)', '"num_checks": hash("x")')
    code.write_text(text, "utf-8")
    plan.commit("an address")
    outputs = verify("gate", work=tmp_path / "unsound")
    assert outputs[0].recorded == "differs"
    assert outputs[0].recorded_difference.startswith("num_checks: 1 and ")
    assert outputs[0].difference.startswith("num_checks: ")
    with pytest.raises(PipelineError, match=r"first data/gate/verdict.json \(num_"):
        report(outputs)
    assert "the two builds differ: num_checks" in capsys.readouterr().out


@pytest.mark.nightly
def test_every_output_of_every_stage_is_the_same_twice(
    tmp_path, tiny_values, monkeypatch, capsys
):
    root = tmp_path / "checkout"
    Plan(root, tiny_values)
    monkeypatch.chdir(root)
    outputs = verify(None, work=tmp_path / "builds")
    report(outputs)
    stages = ["ingest", "validate", "split", "train", "evaluate", "gate", "export"]
    assert list(dict.fromkeys(out.stage for out in outputs)) == stages
    assert f"all {len(outputs)} outputs are the same" in capsys.readouterr().out


def output(recorded: str) -> Output:
    return Output("gate", paths.VERDICT, "0" * 64, "", recorded, "")


def test_what_dvc_lock_records_counts_too(capsys):
    report([output("same")])
    assert capsys.readouterr().out.count("same") == 3
    with pytest.raises(PipelineError, match="1 of 2 outputs are not what"):
        report([output("same"), output("differs")])


def test_what_cannot_be_verified_is_one_sentence(plan, tmp_path, monkeypatch):
    with pytest.raises(PipelineError, match="has no stage 'moon'; it has ingest"):
        verify("moon", work=tmp_path / "a")
    with pytest.raises(PipelineError, match=r"data/quality/pairs.parquet, which split"):
        verify("split", work=tmp_path / "b")
    files.write_json(paths.METRICS, {})
    with pytest.raises(PipelineError, match="the first build failed"):
        verify("gate", work=tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match="run from the root of a checkout"):
        verify(None, work=tmp_path / "d")
