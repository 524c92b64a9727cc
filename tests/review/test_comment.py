"""One comment a pull request, against a stand-in of the forge."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.core.errors import PipelineError
from stages.review.comment import LIMIT, MARKER, Forge, comment

SHA = "a" * 40
EVENT = {
    "workflow_run": {
        "event": "pull_request",
        "head_sha": SHA,
        "head_branch": "fix/Ünïcode",
        "head_repository": {"owner": {"login": "stranger"}},
        "html_url": "https://forge.example/runs/1",
    }
}


class Stand:
    """What the forge holds, and what it was asked."""

    def __init__(self):
        self.pulls = [{"number": 7, "head": {"sha": SHA}}]
        self.comments = []
        self.asked = []
        self.refuses = False


@pytest.fixture
def stand():
    state = Stand()

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "null")
            state.asked.append((self.command, self.path, body, dict(self.headers)))
            if state.refuses:
                return self.send_error(403)
            value = self.value(body)
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return self.wfile.write(content)

        def value(self, body):
            if "/pulls?" in self.path:
                return state.pulls
            if self.command == "GET":
                page = int(self.path.rsplit("=", 1)[1])
                return state.comments[(page - 1) * 100 : page * 100]
            if self.command == "POST":
                user = {"type": "Bot"}
                new = {"id": 1000 + len(state.comments), "user": user, **body}
                state.comments.append(new)
                return new
            number = int(self.path.rsplit("/", 1)[1])
            found = next(c for c in state.comments if c["id"] == number)
            found |= body
            return found

        def log_message(self, *words):
            pass

    for method in ("GET", "POST", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.forge = Forge(
        {
            "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
            "GITHUB_REPOSITORY": "owner/project",
            "GITHUB_TOKEN": "the-token",
        }
    )
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "review.md"
    path.write_text(f"{MARKER}\n## Worse\n@maintainer look\n", encoding="utf-8")
    return path


def test_one_comment_is_posted_then_renewed(stand, text):
    assert comment(text, EVENT, stand.forge) == "commented on pull request 7"
    body = stand.comments[0]["body"]
    assert body.startswith(MARKER)
    assert "## Worse" in body
    assert "[its run](https://forge.example/runs/1)" in body
    assert "@maintainer" not in body  # it would call a person
    method, path, _, headers = stand.asked[0]
    assert method == "GET"
    assert path.startswith("/repos/owner/project/pulls?state=open&")
    assert "head=stranger%3Afix%2F%C3%9Cn%C3%AFcode" in path
    assert headers["Authorization"] == "Bearer the-token"

    text.write_text(f"{MARKER}\n## Better\n", encoding="utf-8")
    assert comment(text, EVENT, stand.forge) == "renewed the comment of pull request 7"
    assert len(stand.comments) == 1
    assert "## Better" in stand.comments[0]["body"]


def test_ours_is_found_behind_many_and_nobody_elses_is_touched(stand, text):
    person = {"type": "User"}
    stand.comments = [
        {"id": n, "user": person, "body": f"{MARKER} forged"} for n in range(130)
    ]
    stand.comments.append({"id": 500, "user": {"type": "Bot"}, "body": f"{MARKER} old"})
    comment(text, EVENT, stand.forge)
    assert all(c["body"] == f"{MARKER} forged" for c in stand.comments[:130])
    assert "## Worse" in stand.comments[130]["body"]


def test_a_commit_that_is_no_longer_the_head_is_let_be(stand, text):
    stand.pulls = [{"number": 7, "head": {"sha": "b" * 40}}]
    assert "nothing was posted" in comment(text, EVENT, stand.forge)
    assert not stand.comments


def test_a_refusal_is_one_sentence(stand, text):
    stand.refuses = True
    with pytest.raises(PipelineError, match="pull-requests: write"):
        comment(text, EVENT, stand.forge)


def test_what_is_no_review_is_refused(stand, text, tmp_path):
    (tmp_path / "secret").write_text(f"{MARKER} secret")
    link = tmp_path / "link.md"
    link.symlink_to(tmp_path / "secret")
    for path in (link, tmp_path / "none.md", tmp_path):
        with pytest.raises(PipelineError, match="should be a file"):
            comment(path, EVENT, stand.forge)
    for content in ("no marker", MARKER + "x" * LIMIT):
        text.write_text(content)
        with pytest.raises(PipelineError, match="should be a review"):
            comment(text, EVENT, stand.forge)
    for event in ({}, {"workflow_run": {"event": "push"}}):
        with pytest.raises(PipelineError, match="should be a workflow_run"):
            comment(text, event, stand.forge)
    assert not stand.comments


def test_a_missing_setting_is_named():
    with pytest.raises(PipelineError, match="GITHUB_TOKEN should be set"):
        Forge({"GITHUB_REPOSITORY": "owner/project"})
