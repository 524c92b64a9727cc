"""The forge's workflows: valid, with the least rights, and their commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = {path.stem: path for path in FOLDER.glob("*.yaml")}
ACTION = re.compile(r"uses: (\S+)@[0-9a-f]{40} # v[\d.]+")


def load(name):
    """YAML 1.2, in which `on` is a word."""
    return YAML(typ="safe", pure=True).load(FILES[name].read_text("utf-8"))


def steps(name):
    return [step for job in load(name)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    "command",
    [
        "jactionlint --profile correctness --shellcheck=",
        "zizmor --offline --no-progress .github",
    ],
)
def test_form_and_safety(command):
    program, *words = command.split()
    words = [Path(sys.executable).with_name(program), *words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_once():
    text = "".join(path.read_text("utf-8") for path in FILES.values())
    lines = {
        line.strip().removeprefix("- ")
        for line in text.splitlines()
        if " uses: " in line
    }
    names = [ACTION.fullmatch(line)[1] for line in lines]
    assert len(names) == len(set(names)), "one action, one version"


def test_a_forks_code_meets_no_token():
    for name in ("pipeline", "nightly", "audit"):
        workflow = load(name)
        assert workflow["permissions"] == {"contents": "read"}
        assert not any("permissions" in job for job in workflow["jobs"].values())
        assert "github.token" not in FILES[name].read_text("utf-8")
    # Only the default branch's code runs beside a token that may write.
    comment = load("review-comment")
    assert comment["on"] == {
        "workflow_run": {"workflows": ["pipeline"], "types": ["completed"]}
    }
    assert "ref" not in steps("review-comment")[0]["with"]
    # The credentials of a DVC remote reach the steps that talk to it, and no other.
    holders = [step for step in steps("pipeline") if "secrets." in str(step)]
    assert {step["run"] for step in holders} == {"make pull", "make push"}


def test_make_targets_exist():
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    )
    commands = [step.get("run", "") for name in FILES for step in steps(name)]
    used = {match[1] for c in commands if (match := re.match(r"make ([a-z]+)", c))}
    assert {"repro", "review", "test", "audit"} <= used <= targets


GH = """#!/bin/bash
# A stand-in of GitHub's command line: answers, and notes what it was asked.
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *" -X GET "*/pulls*) echo "$PULL" ;;
  *artifacts*) echo 42 ;;
  *git/ref/heads*) exit 1 ;;
  *git/refs*) exit "${REFUSED:-0}" ;;
  *git/trees*|*git/commits*) echo 0123 ;;
  "pr comment"*) cat body.md > "$POSTED" ;;
esac
"""


@pytest.fixture
def post(tmp_path):
    """Posts a review with a stand-in of `gh`; gives the comment and the calls."""
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(GH)
    program.chmod(0o755)

    def run(text, *, pull="7", picture=b"", check=True):
        folder = tmp_path / "review"
        folder.mkdir()
        (folder / "review.md").write_text(text, encoding="utf-8")
        if picture:
            (folder / "review.png").write_bytes(picture)
        environment = os.environ | {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "POSTED": str(tmp_path / "posted"),
            "PULL": pull,
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_SERVER_URL": "https://forge.example",
            "RUN_ID": "1",
            "HEAD_SHA": "a" * 40,
            "HEAD_OWNER": "stranger",
            "HEAD_BRANCH": "fix/Ünïcode $(touch pwned)",
        }
        script = ROOT / ".github" / "post_review.sh"
        words = ["bash", str(script), "review"]
        subprocess.run(words, cwd=tmp_path, env=environment, check=check)
        posted = tmp_path / "posted"
        calls = (tmp_path / "calls").read_text()
        return posted.read_text("utf-8") if posted.exists() else None, calls

    return run


def test_the_posted_text_mentions_nobody_and_fits(post):
    body, calls = post(
        "## ❌ The gate failed &lt; 0\\_9 @team\n\n@someone\n" + "@é" * 70_000
    )
    assert re.search(r"@\w", body) is None
    assert len(body) < 65_536
    assert "https://forge.example/o/r/actions/runs/1/artifacts/42" in body
    assert "--edit-last --create-if-none" in calls
    status = calls.splitlines()[-1]
    assert "state=failure" in status
    assert f"statuses/{'a' * 40}" in status
    assert "description=❌ The gate failed < 0_9 @\u200bteam" in status


def test_a_picture_is_shown_from_a_branch(post):
    body, calls = post(
        "## 🟢 Better\n\nrest\n", picture=b"\x89PNG\r\n\x1a\n" + bytes(40)
    )
    assert (
        f"https://forge.example/o/r/blob/review-pictures/{'a' * 40}.png?raw=true"
        in body
    )
    assert body.startswith("## 🟢 Better\n")
    assert "refs/heads/review-pictures" in calls
    assert "state=success" in calls


def test_without_its_picture_the_comment_is_posted_all_the_same(post, monkeypatch):
    monkeypatch.setenv("REFUSED", "1")  # by a rule on branches
    body, _ = post("## 🟢 Better\n", picture=b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert "review-pictures" not in body


def test_another_file_is_no_picture(post):
    body, calls = post("## 🟢 Better\n", picture=b"<svg onload=alert(1)>")
    assert "review-pictures" not in body + calls


def test_without_a_pull_request_nothing_is_posted(post):
    body, calls = post("## 🟢 Better\n", pull="")
    assert body is None
    assert len(calls.splitlines()) == 1
