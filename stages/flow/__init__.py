"""The corridor: Prefect over the plan in `dvc.yaml`; it decides nothing of its own.

DVC owns order, caching and versions; Prefect adds the schedule, the retries and a page
to look at. `dvc repro` needs nothing of this.

pipeline  every stage, one task each, in the working tree or as an experiment
refresh   the pipeline as a branch of its own, if there are newer data
"""

import os

# Nothing is sent home; Prefect reads these when it is imported.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

from stages.flow.flows import pipeline, refresh

__all__ = ["pipeline", "refresh"]
