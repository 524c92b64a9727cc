"""Hand tools around the pipeline; none is a stage."""
