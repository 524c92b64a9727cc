"""Prefect over the plan in `dvc.yaml`: schedules, retries and a page to look at.

DVC owns order, caching and versions, and `dvc repro` needs nothing of this room.

pipeline  runs every stage, one task each, in the working tree or as an experiment
refresh   runs the pipeline on newer data, if there are any, and keeps it as a branch
"""

import warnings

from stages.core.errors import PipelineError

# The error that follows says so in a sentence.
warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
try:
    from stages.flow.flows import pipeline, refresh
except ValueError as error:  # Prefect reads its settings when it is imported
    reason = " ".join(str(error).partition("[type=")[0].split())
    raise PipelineError(
        f"Prefect's settings are wrong ({reason}); correct the variable PREFECT_... or "
        "the profile in $PREFECT_HOME/profiles.toml (default: ~/.prefect)"
    ) from None

__all__ = ["pipeline", "refresh"]
