"""Prefect over the plan in `dvc.yaml`: schedules, retries and a page to look at.

DVC owns order, caching and versions, and `dvc repro` needs nothing of this room.

pipeline  runs every stage, one task each, in the working tree or as an experiment
refresh   runs the pipeline on newer data, if there are any, and keeps it as a branch
"""

from stages.flow.flows import pipeline, refresh

__all__ = ["pipeline", "refresh"]
