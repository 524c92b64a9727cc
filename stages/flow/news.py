"""Whether there are newer data than the last commit was trained on."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.errors import PipelineError
from stages.core.params import IngestParams
from stages.datasets.sources import kaggle
from stages.flow.processes import dvc, environment


@dataclass(frozen=True)
class News:
    """What is new.

    Attributes:
        name: Short and unique, such as `v6`; "" if nothing is new.
        sentence: The same for people.
        values: Params to set, by dotted name.
    """

    name: str
    sentence: str
    values: dict[str, Any] = field(default_factory=dict)


def look(root: Path, params: IngestParams) -> News:
    """Asks the source, in seconds, without fetching anything.

    Args:
        root: The repository.
        params: The `ingest` section of the last commit.

    Raises:
        NetworkError: If Kaggle does not answer.
        PipelineError: If Kaggle refuses to, or the folder is missing.
    """
    match params.source:
        case "kaggle":
            return _kaggle(params)
        case "folder":
            return _folder(root, params.folder)
        case _:
            return News("", f"nothing new: {params.source} pairs are drawn from params")


def _kaggle(params: IngestParams) -> News:
    pinned, newest = params.kaggle.version, kaggle.newest_version(params.kaggle)
    if newest <= pinned:
        return News(
            "", f"nothing new: {params.kaggle.dataset} is still at version {newest}"
        )
    return News(
        f"v{newest}",
        f"{params.kaggle.dataset} has version {newest}, params.yaml pins {pinned}",
        {"ingest.kaggle.version": newest},
    )


def _folder(root: Path, folder: str) -> News:
    if not (root / folder).exists():
        raise PipelineError(
            f"ingest.folder {folder} does not exist; put the data there or correct "
            "params.yaml"
        )
    done = subprocess.run(
        dvc("status", "--json", "ingest"),
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise PipelineError(f"dvc status cannot tell what is new: {reason[0]}")
    changed = {
        path
        for entry in json.loads(done.stdout or "{}").get("ingest", [])
        if isinstance(entry, dict)
        for path in entry.get("changed deps", {})
    }
    if folder not in changed:
        return News("", f"nothing new: {folder} is as it was")
    content = files.sha256(root / folder)[:8]
    return News(f"folder-{content}", f"{folder} has changed, it is now {content}")
