"""The order of the stages, as DVC reads it from `dvc.yaml`."""

from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.core import paths
from stages.core.errors import PipelineError


def read_plan(root: Path) -> dict[str, list[str]]:
    """The stages of a DVC repository in an order in which they can run.

    Returns:
        Names of the stages whose outputs a stage reads, by its name.

    Raises:
        PipelineError: If `dvc.yaml` cannot be read, or its stages form a cycle.
    """
    try:
        with Repo(root) as repo:
            graph = repo.index.graph
            upstream = {
                _address(stage): sorted(map(_address, graph.successors(stage)))
                for stage in graph
            }
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"dvc.yaml cannot be run: {reason}") from None
    return {name: upstream[name] for name in TopologicalSorter(upstream).static_order()}


def _address(stage: Any) -> str:
    """The stage's name for `dvc repro`."""
    path = str(stage.path_in_repo)
    name = getattr(stage, "name", None)
    if name is None:  # a .dvc file
        return path
    return str(name) if path == paths.PLAN.name else f"{path}:{name}"
