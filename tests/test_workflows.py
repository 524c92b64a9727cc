"""The forge's workflows: their form, their rights, and that their commands exist."""

import re
import subprocess

import pytest
from ruamel.yaml import YAML
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yaml"))
LINT = """
extends: default
rules:
  line-length: {max: 100}
  document-start: disable
  truthy: {check-keys: false}
  comments: {min-spaces-from-content: 1}
"""
# As the public workflow schema has them; what we do not use is left out on purpose.
TOP = {"name", "on", "permissions", "concurrency", "jobs"}
EVENTS = {"pull_request", "push", "schedule", "workflow_dispatch", "workflow_run"}
JOB = {"name", "if", "runs-on", "timeout-minutes", "permissions", "steps"}
STEP = {"name", "id", "if", "uses", "with", "run", "env", "continue-on-error"}
RIGHTS = {"read", "write", "none"}
SCOPES = {"actions", "contents", "issues", "pull-requests"}
ACTIONS = {"cache", "checkout", "download-artifact", "setup-python", "upload-artifact"}
# What the expression language offers and these files use.
CONTEXTS = {"github", "runner", "steps"}
FUNCTIONS = {"cancelled", "hashFiles"}


def load(path):
    """YAML 1.2, in which `on` is a word."""
    return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))


def jobs():
    return [
        pytest.param(job, id=f"{path.stem}-{name}")
        for path in FILES
        for name, job in load(path)["jobs"].items()
    ]


def steps():
    return [step for param in jobs() for step in param.values[0]["steps"]]


def test_the_workflows_are_there():
    names = ["audit.yaml", "nightly.yaml", "pipeline.yaml", "review-comment.yaml"]
    assert [path.name for path in FILES] == names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_form(path):
    problems = linter.run(path.read_text("utf-8"), YamlLintConfig(LINT))
    assert not [str(problem) for problem in problems]
    workflow = load(path)
    assert set(workflow) == TOP
    assert workflow["name"] == path.stem
    assert set(workflow["on"]) <= EVENTS
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}
    for cron in workflow["on"].get("schedule", []):
        assert re.fullmatch(r"(\S+ ){4}\S+", cron["cron"])


@pytest.mark.parametrize("job", jobs())
def test_form_of_jobs_and_steps(job):
    assert set(job) <= JOB
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
    assert 0 < job["timeout-minutes"] <= 120
    assert set(job.get("permissions", {})) <= SCOPES
    assert set(job.get("permissions", {}).values()) <= RIGHTS
    ids = [step["id"] for step in job["steps"] if "id" in step]
    assert len(ids) == len(set(ids))
    for step in job["steps"]:
        assert set(step) <= STEP
        assert ("uses" in step) != ("run" in step)
        assert "uses" in step or "name" in step
        assert all(
            isinstance(v, str | int | bool) for v in step.get("with", {}).values()
        )
    used = re.findall(r"steps\.(\w+)\.", str(job))
    assert set(used) <= set(ids)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_expressions_use_what_there_is(path):
    for expression in re.findall(r"\$\{\{(.*?)\}\}", path.read_text("utf-8")):
        words = re.sub(r"'[^']*'", "", expression)
        assert set(re.findall(r"([a-zA-Z]+)\(", words)) <= FUNCTIONS
        assert set(re.findall(r"(?<![\w.])([a-z]+)\.", words)) <= CONTEXTS


def test_actions_are_pinned_by_commit():
    pins = {}
    for path in FILES:
        for line in path.read_text("utf-8").splitlines():
            if "uses:" not in line:
                continue
            match = re.fullmatch(
                r"\s*(?:- )?uses: actions/([a-z-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)",
                line,
            )
            assert match, line
            assert match[1] in ACTIONS
            pins.setdefault(match[1], set()).add((match[2], match[3]))
    assert set(pins) == ACTIONS
    assert all(len(pin) == 1 for pin in pins.values()), "one action, one version"


def test_rights_are_the_least():
    workflows = {path.stem: load(path) for path in FILES}
    assert workflows["pipeline"]["permissions"] == {"contents": "read"}
    assert workflows["nightly"]["permissions"] == {"contents": "read"}
    assert workflows["audit"]["permissions"] == {"contents": "read"}
    assert workflows["review-comment"]["permissions"] == {}
    for name in ("pipeline", "nightly", "audit"):
        assert not any("permissions" in job for job in workflows[name]["jobs"].values())
        text = (FOLDER / f"{name}.yaml").read_text("utf-8")
        # A fork's code runs there: it must meet no token.
        assert "secrets." not in text
        assert "github.token" not in text
        assert "pull_request_target" not in text
    comment = workflows["review-comment"]["jobs"]["comment"]
    assert comment["permissions"] == {
        "actions": "read",
        "contents": "read",
        "pull-requests": "write",
    }
    # Only trusted code runs beside the token: the default branch's, never the head's.
    assert workflows["review-comment"]["on"] == {
        "workflow_run": {"workflows": ["pipeline"], "types": ["completed"]}
    }
    assert "ref" not in comment["steps"][0]["with"]


def test_whole_history_and_no_token_left_behind():
    checkouts = [
        s for s in steps() if s.get("uses", "").startswith("actions/checkout@")
    ]
    assert len(checkouts) == len(jobs())
    for step in checkouts:
        assert step["with"] == {"fetch-depth": 0, "persist-credentials": False}


def test_nothing_foreign_reaches_a_shell():
    for step in steps():
        assert "${{" not in step.get("run", "")


def test_commands_live_in_the_repository():
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    )
    for step in steps():
        command = step.get("run")
        if command is None:
            continue
        assert "\n" not in command
        if match := re.fullmatch(r"make ([a-z]+)(?: [A-Z]+=[\w^]+)*", command):
            assert match[1] in targets
        else:
            match = re.fullmatch(r"python -m stages\.tools\.(\w+) [\w./]+", command)
            assert match, command
            assert (ROOT / "stages" / "tools" / f"{match[1]}.py").is_file()


def test_packages_are_audited_every_week_and_every_one_of_them():
    workflow = load(FOLDER / "audit.yaml")
    (when,) = workflow["on"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", when["cron"])
    assert {"run": "make audit", "name": "Known weaknesses"} in steps()
    done = subprocess.run(
        ["make", "-n", "audit"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pip-audit --requirement requirements.lock" in done.stdout
    # Without it, what could not be looked up would count as sound.
    assert "--strict" in done.stdout


def test_make_review_says_what_the_workflow_means():
    words = ["make", "-n", "review", "BASE=HEAD^1", "OUT=review"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'stages.review "HEAD^1"  --out "review"' in done.stdout
    assert 'cat "review/review.md" >> "$GITHUB_STEP_SUMMARY"' in done.stdout
    words = ["make", "-n", "review"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'stages.review "main"  --out "."' in done.stdout


def test_the_artifact_that_one_uploads_is_the_one_the_other_fetches():
    pipeline, comment = (
        load(FOLDER / f) for f in ("pipeline.yaml", "review-comment.yaml")
    )
    assert comment["on"]["workflow_run"]["workflows"] == [pipeline["name"]]
    upload = pipeline["jobs"]["repro"]["steps"][-1]["with"]
    fetch = comment["jobs"]["comment"]["steps"][-2]["with"]
    assert upload["name"] == fetch["name"]
    assert comment["jobs"]["comment"]["steps"][-1]["run"].endswith("review/review.md")


def test_the_linter_finds_what_is_wrong():
    text = "on: \n   push: [ main]\n"
    assert list(linter.run(text, YamlLintConfig(LINT)))
