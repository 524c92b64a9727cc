"""Are there newer data than those that the last commit was trained on?"""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core import files
from stages.core.errors import PipelineError
from stages.core.params import IngestParams
from stages.core.processes import dvc, environment
from stages.datasets.sources import kaggle
from stages.datasets.tree import check_for_dvc


@dataclass(frozen=True)
class Update:
    """Newer data: a short, unique name, "" if there are none, and params to set."""

    name: str
    sentence: str
    values: dict[str, Any] = field(default_factory=dict)


def find(root: Path, params: IngestParams) -> Update:
    """Asks the source that the last commit's params name, without a download."""
    for source in params.source:
        match source:
            case "kaggle":
                update = _kaggle(params)
            case "folder":
                update = _folder(root, params.folder)
            case _:
                update = Update("", f"nothing new: {source} pairs come from params")
        if update.name:
            break
    return update


def _kaggle(params: IngestParams) -> Update:
    pinned, newest = params.kaggle.version, kaggle.newest_version(params.kaggle)
    if newest <= pinned:
        return Update(
            "", f"nothing new: {params.kaggle.dataset} is still at version {newest}"
        )
    return Update(
        f"v{newest}",
        f"{params.kaggle.dataset} has version {newest}, params.yaml pins {pinned}",
        {"ingest.kaggle.version": newest},
    )


def _folder(root: Path, folder: str) -> Update:
    if not (root / folder).exists():
        raise PipelineError(
            f"ingest.folder {folder} does not exist; put the data there or correct "
            "params.yaml"
        )
    check_for_dvc(root / folder)
    done = subprocess.run(
        dvc("status", "--json", "ingest"),
        cwd=root,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise PipelineError(f"dvc status cannot compare the data: {reason[0]}")
    changed = {
        path
        for entry in json.loads(done.stdout or "{}").get("ingest", [])
        if isinstance(entry, dict)
        for path in entry.get("changed deps", {})
    }
    if folder not in changed:
        return Update("", f"nothing new: {folder} is unchanged")
    content = files.sha256(root / folder)[:8]
    return Update(f"folder-{content}", f"{folder} has changed, it is now {content}")
