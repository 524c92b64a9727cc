import contextlib
import datetime
import re
from pathlib import Path

import gto.api
import pytest
from dvc.repo import Repo
from dvc.repo.artifacts import Artifacts
from ruamel.yaml import YAML

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.core.params import parse_params
from stages.gate import gate
from stages.tools.release import release
from tests.conftest import with_overrides
from tests.plan import Plan

TODAY = datetime.date(2026, 3, 5)
DICE = {"mean": 0.9667, "ci_low": 0.9489, "ci_high": 0.9769, "p05": 0.9, "min": 0.5}
METRICS = {"dice": DICE, "num_images": 22, "num_undefined": 0}
LOG = """# Changelog

## Unreleased

### Added

- A network.

## 0.9.0 - 2025

Old.
"""
ONNX = paths.EXPORT / "unet.onnx"


def fake_outputs(plan: Plan) -> None:
    """Something under the name of every output, consistent where a release looks."""
    declared = YAML(typ="safe").load((plan.root / "dvc.yaml").read_text())["stages"]
    for stage in declared.values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                path = Path(out if isinstance(out, str) else next(iter(out)))
                path = path if path.suffix else path / "content"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{path}\n")
    files.write_json(paths.INGESTED_SUMMARY, {"dataset": "phantoms"})
    files.write_json(paths.METRICS, METRICS)
    gate(parse_params(values_of(plan)).gate)
    ONNX.write_text("a model")


def values_of(plan: Plan) -> dict:
    return YAML(typ="safe", pure=True).load((plan.root / "params.yaml").read_text())


def commit(plan: Plan, message: str) -> None:
    """As if every stage had run and written what now lies there."""
    with Repo() as repo:
        repo.commit(force=True)
    plan.commit(message)


@pytest.fixture(scope="module")
def made(tmp_path_factory, shipped_values):
    """The shipped plan with outputs that nothing was trained for."""
    bounds = {"gate.min": {"dice.mean": 0.9}, "gate.max": {}}
    folder = tmp_path_factory.mktemp("release") / "made"
    folder.mkdir()
    plan = Plan(folder, with_overrides(shipped_values, bounds))
    (folder / "CHANGELOG.md").write_text(LOG)
    with contextlib.chdir(folder):
        fake_outputs(plan)
        commit(plan, "outputs")
    return plan


@pytest.fixture
def plan(made, tmp_path, monkeypatch):
    """A copy to release from, which the test runs in."""
    copy = made.copy(tmp_path / "plan")
    monkeypatch.chdir(copy.root)
    return copy


def test_a_release_is_what_gto_and_dvc_understand(plan, tmp_path):
    before = plan.git("rev-parse", "HEAD")
    found = release("1.2.0", stage="prod", today=TODAY)
    assert (found.branch, found.tags) == ("main", ["unet@v1.2.0", "unet#prod#1"])
    assert plan.git("tag").splitlines() == ["unet#prod#1", "unet@v1.2.0"]
    assert plan.git("rev-parse", "HEAD~1") == before
    assert plan.git("rev-parse", "unet@v1.2.0^{}") == plan.git("rev-parse", "HEAD")
    assert plan.git("show", "--format=", "--name-only", "HEAD") == "CHANGELOG.md"
    assert plan.git("status", "--porcelain") == ""
    assert Path("CHANGELOG.md").read_text() == (
        "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-03-05\n\n"
        "Model `unet@v1.2.0`, trained on phantoms: Dice 0.9667 (95 % interval 0.9489 "
        "to 0.9769)\non 22 images; 5th percentile 0.9000, lowest 0.5000; 0 undefined."
        "\n\n"
        "### Added\n\n- A network.\n\n## 0.9.0 - 2025\n\nOld.\n"
    )
    shown = gto.api.show(".")["unet"]
    assert (shown["version"], shown["stage"]["prod"]) == ("v1.2.0", "v1.2.0")
    for way in ({"version": "v1.2.0"}, {"stage": "prod"}):
        out = tmp_path / next(iter(way))
        Artifacts.get(str(plan.root), "unet", out=str(out), **way)
        assert out.read_bytes() == ONNX.read_bytes()
    told = found.next_steps()
    assert "git push --atomic origin main 'unet@v1.2.0' 'unet#prod#1'" in told
    assert "dvc push  # after `dvc remote add" in told
    assert "unet --rev v1.2.0" in told

    # The next one.
    with pytest.raises(PipelineError, match="list changes under `## Unreleased`"):
        release("1.3.0", today=TODAY)
    text = Path("CHANGELOG.md").read_text()
    Path("CHANGELOG.md").write_text(text.replace("ed\n\n## 1", "ed\n\n- More.\n\n## 1"))
    plan.commit("more")
    with pytest.raises(PipelineError, match=r"'v1\.2\.0'"):
        release("1.2.0", today=TODAY)
    found = release("1.3.0-rc.1", stage="dev", today=TODAY)
    assert found.tags == ["unet@v1.3.0-rc.1", "unet#dev#2"]
    assert gto.api.show(".")["unet"]["stage"] == {
        "prod": "v1.2.0",
        "dev": "v1.3.0-rc.1",
    }
    headings = re.findall("^## .*", Path("CHANGELOG.md").read_text(), re.M)
    assert headings == [
        *("## Unreleased", "## 1.3.0-rc.1 - 2026-03-05"),
        *("## 1.2.0 - 2026-03-05", "## 0.9.0 - 2025"),
    ]


def untracked(plan: Plan) -> None:
    Path("new file.txt").touch()


def detached(plan: Plan) -> None:
    plan.git("checkout", "-q", "--detach")


def failing(plan: Plan) -> None:
    files.write_json(paths.METRICS, METRICS | {"dice": DICE | {"mean": 0.1}})
    with contextlib.suppress(PipelineError):
        gate(parse_params(values_of(plan)).gate)
    plan.commit("failing")


def stale(plan: Plan) -> None:
    plan.write_params(with_overrides(values_of(plan), {"train.epochs": 3}))
    plan.commit("stale")


def other_output(plan: Plan) -> None:
    (paths.EXPORT / "model_card.md").write_text("mine")


def no_news(plan: Plan) -> None:
    Path("CHANGELOG.md").write_text(LOG.replace("- A network.", "Nothing."))
    plan.commit("no news")


REFUSED = {
    untracked: "new file.txt is not",
    detached: "HEAD should be a branch",
    failing: r"has not \(dice.mean out of bounds\)",
    stale: "`dvc status` finds train.* changed",
    other_output: "`dvc status` finds export changed",
    no_news: "CHANGELOG.md should list changes under `## Unreleased`",
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_speaks_against_it_is_one_sentence(plan, spoil):
    spoil(plan)
    state = (plan.git("rev-parse", "HEAD"), plan.git("status", "--porcelain"))
    with pytest.raises(PipelineError, match=REFUSED[spoil]) as told:
        release("1.2.0", stage="dev", today=TODAY)
    assert "\n" not in str(told.value)
    assert plan.git("tag") == ""
    assert state == (plan.git("rev-parse", "HEAD"), plan.git("status", "--porcelain"))


def test_what_is_no_version_is_one_sentence(plan):
    for version in ("1.2", "v1.2.0"):
        with pytest.raises(PipelineError, match=r"nothing was released: .*be parsed"):
            release(version, today=TODAY)


@pytest.mark.parametrize("step", ["commit", "tag"])
def test_what_git_refuses_leaves_all_as_it_was(plan, step):
    head = plan.git("rev-parse", "HEAD")
    if step == "commit":
        hook = plan.root / ".git" / "hooks" / "commit-msg"
        hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
        hook.chmod(0o755)
    else:
        plan.git("tag", "unet#prod#1/former")  # takes a name that is needed
    with pytest.raises(PipelineError, match="nothing was released: ") as told:
        release("1.2.0", stage="prod", today=TODAY)
    assert ("not today" in str(told.value)) == (step == "commit")
    assert plan.git("rev-parse", "HEAD") == head
    assert plan.git("status", "--porcelain") == ""
    assert "unet@v1.2.0" not in plan.git("tag")
    assert Path("CHANGELOG.md").read_text() == LOG


def test_a_folder_of_a_larger_repository_is_told_what_to_do(made, tmp_path):
    larger = tmp_path / "larger"
    copy = made.copy(larger / "films")
    (copy.root / ".git").rename(larger / ".git")
    with contextlib.chdir(copy.root), pytest.raises(PipelineError) as told:
        release("1.2.0", today=TODAY)
    assert "git subtree split --prefix films" in str(told.value)
