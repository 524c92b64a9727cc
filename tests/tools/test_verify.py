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


@pytest.mark.slow
def test_a_stage_built_twice_is_the_same_until_it_is_not(plan, tmp_path, capsys):
    outputs = verify("gate", work=tmp_path / "sound")
    report(outputs)
    assert [(o.path, o.recorded) for o in outputs] == [(str(paths.VERDICT), "")]
    assert outputs[0].first == outputs[0].second != ""
    assert not paths.VERDICT.exists()
    assert "all 1 outputs of the two builds are the same" in capsys.readouterr().out

    # An address in an output.
    code = plan.root / "stages" / "gate.py"
    text = code.read_text("utf-8")
    assert '"passed": not failed' in text
    # Python hashes text differently in each process.
    text = text.replace('"passed": not failed', '"passed": hash("x")')
    code.write_text(text, "utf-8")
    plan.commit("an address")
    outputs = verify("gate", work=tmp_path / "unsound")
    with pytest.raises(PipelineError, match=r"1 of 1 outputs differ between two"):
        report(outputs)


@pytest.mark.nightly
def test_every_output_of_every_stage_is_the_same_twice(
    tmp_path, tiny_values, monkeypatch
):
    root = tmp_path / "checkout"
    Plan(root, tiny_values)
    monkeypatch.chdir(root)
    outputs = verify(None, work=tmp_path / "builds")
    report(outputs)
    assert str(paths.EXPORT) in {out.path for out in outputs}


@pytest.mark.parametrize("recorded", ["b", "z"])
def test_a_record_of_another_processor_is_no_failure(capsys, recorded):
    build = Output(str(paths.BUILD), "b", "b", recorded)
    outputs = [build, Output("model", "2", "2", "9")]
    if recorded == "b":
        with pytest.raises(
            PipelineError, match=r"1 of 2 outputs differ from dvc\.lock"
        ):
            report(outputs)
    else:
        report(outputs)
        said = capsys.readouterr().out
        assert "2 differ from dvc.lock, which another processor" in said


def test_errors_are_one_sentence(plan, tmp_path, monkeypatch):
    with pytest.raises(PipelineError, match="has no stage 'moon'; it has ingest"):
        verify("moon", work=tmp_path / "a")
    with pytest.raises(PipelineError, match=r"data/quality/pairs.parquet, which split"):
        verify("split", work=tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match="run from a checkout's root"):
        verify(None, work=tmp_path / "d")
