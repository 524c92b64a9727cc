"""The same commit built on two machines, as far as one machine can play both."""

import pytest

from stages.core import worktree
from stages.review import review
from stages.review.rebuild import rebuilt
from stages.review.revision import revisions
from stages.review.verdict import Kind
from tests.plan import Plan

pytestmark = pytest.mark.slow


def test_the_same_inputs_built_elsewhere_are_no_change(finished, tmp_path, monkeypatch):
    plan = Plan.at(finished).copy(tmp_path / "repository")
    here = plan.git("rev-parse", "HEAD")
    # Without oneDNN, sums are taken in another order: other bits.
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        words = ("--force", "--single-item", "--no-run-cache")
        for stage in ("train", "evaluate"):
            plan.run("dvc", "repro", *words, stage)
    # What the other machine did not run is left as it was.
    plan.run("dvc", "commit", "--force", "gate", "export")
    other = plan.commit("built elsewhere")
    plan.git("checkout", "-q", here)

    monkeypatch.chdir(plan.root)
    before, after = revisions(other, None)
    found = review(before, after)
    assert found.changes.same_inputs
    assert not found.changes.same_model
    assert found.verdict.kind is Kind.SAME_INPUTS
    assert "on another machine, not a change" in found.verdict.sentence
    assert any(change.name == "onednn" for change in found.changes.machine)
    assert "The models were trained on different machines" in str(found.notes)

    # Built again here, the base is what the head is.
    with rebuilt(before, after) as again:
        found = review(again, after)
        assert str(found.base.revision).endswith(", built here")
        assert found.changes.same_machine
        assert found.verdict.kind is Kind.SAME_MODEL
    with rebuilt(again, after) as same:
        assert same is again  # one machine made both
    assert not list((plan.root / worktree.FOLDER).glob("*/dvc.yaml"))
