"""Posts a review as the one comment of its pull request, and keeps it up to date.

`python -m stages.review.comment review.md`, in a workflow that another one's end
started (`workflow_run`). That workflow is the default branch's and holds the token;
the pull request's code, which wrote the review, never does. So the review is a
stranger's text here: it is taken as text, its mentions call nobody, and what it
belongs to is asked of the forge, not of it. Needs nothing but Python.
"""

import argparse
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from stages.core.errors import PipelineError, run

LIMIT = 65_000  # characters; the forge refuses a comment of more than 65,536
MARKER = "<!-- lungmask-review -->"  # by which the comment is found again
_ZERO_WIDTH = "\N{ZERO WIDTH SPACE}"
_PER_PAGE = 100
_PAGES = 50
_SECONDS = 30


class Forge:
    """The few calls of the forge's interface that a comment needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Takes address, repository and token from a workflow's environment.

        Raises:
            PipelineError: If one is missing.
        """
        self._api = environment.get("GITHUB_API_URL", "https://api.github.com")
        self.repository = _required(environment, "GITHUB_REPOSITORY")
        self._token = _required(environment, "GITHUB_TOKEN")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request under the repository; JSON in, JSON out.

        Raises:
            PipelineError: If the forge refuses or does not answer.
        """
        request = urllib.request.Request(
            f"{self._api}/repos/{self.repository}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        raise PipelineError(
            f"the forge refuses {method} {path.split('?')[0]} ({reason}); the token "
            "needs the permission pull-requests: write"
        )

    def pages(self, path: str) -> list[Any]:
        """All entries of a list."""
        found: list[Any] = []
        for page in range(1, _PAGES + 1):
            some = self.call("GET", f"{path}?per_page={_PER_PAGE}&page={page}")
            found += some
            if len(some) < _PER_PAGE:
                break
        return found


def comment(path: Path, event: dict[str, Any], forge: Forge) -> str:
    """Posts or renews the comment.

    Args:
        path: Markdown that begins with `MARKER`.
        event: The `workflow_run` event.
        forge: Where to post.

    Returns:
        What was done, in a sentence.

    Raises:
        PipelineError: If the text is no review, or the forge refuses.
    """
    finished = event.get("workflow_run")
    if not isinstance(finished, dict) or finished.get("event") != "pull_request":
        raise PipelineError(
            "the event should be a workflow_run that a pull request caused but is not; "
            "run this from .github/workflows/review-comment.yaml alone"
        )
    body = _body(_text(path), finished)
    number = _pull_request(finished, forge)
    if number is None:
        return "no open pull request has this commit as its head: nothing was posted"
    for old in forge.pages(f"issues/{number}/comments"):
        is_ours = old["user"]["type"] == "Bot" and old["body"].startswith(MARKER)
        if is_ours:
            forge.call("PATCH", f"issues/comments/{int(old['id'])}", {"body": body})
            return f"renewed the comment of pull request {number}"
    forge.call("POST", f"issues/{number}/comments", {"body": body})
    return f"commented on pull request {number}"


def _text(path: Path) -> str:
    # A link in an artifact could lead to a file that holds a secret.
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        raise PipelineError(f"{path} should be a file that the review wrote but is not")
    text = path.read_bytes()[: 4 * LIMIT].decode("utf-8", "replace")
    if not text.startswith(MARKER) or len(text) > LIMIT:
        raise PipelineError(
            f"{path} should be a review of at most {LIMIT} characters but is not; "
            "make it with `python -m stages.review`"
        )
    return text


def _body(text: str, finished: dict[str, Any]) -> str:
    """The text with mentions defused, and where it comes from."""
    defused = re.sub(f"@(?!{_ZERO_WIDTH})", f"@{_ZERO_WIDTH}", text)
    return (
        f"{defused.rstrip()}\n\n<sub>Made by this pull request's own code at "
        f"{str(finished['head_sha'])[:10]}; the page with the pictures is an artifact "
        f"of [its run]({finished['html_url']}).</sub>\n"
    )


def _pull_request(finished: dict[str, Any], forge: Forge) -> int | None:
    """The open pull request whose head is the commit that was run.

    The event itself lists none for a fork, so the forge is asked.
    """
    owner = finished["head_repository"]["owner"]["login"]
    head = urllib.parse.quote(f"{owner}:{finished['head_branch']}", safe="")
    for found in forge.call("GET", f"pulls?state=open&per_page=100&head={head}"):
        if found["head"]["sha"] == finished["head_sha"]:
            return int(found["number"])
    return None


def _required(environment: dict[str, str], name: str) -> str:
    if not environment.get(name):
        raise PipelineError(f"{name} should be set, as a workflow sets it, but is not")
    return environment[name]


def main() -> None:
    """Reads the event that the workflow was started by, and comments."""
    parser = argparse.ArgumentParser(prog="python -m stages.review.comment")
    parser.add_argument("review", type=Path, help="review.md")
    words = parser.parse_args()
    environment = dict(os.environ)
    event = json.loads(Path(_required(environment, "GITHUB_EVENT_PATH")).read_text())
    print(comment(words.review, event, Forge(environment)))


if __name__ == "__main__":
    run(main)
