"""Faults done to the real pipeline while it runs: `python -m tests.faults`.

`make faults` lays a finished run of the plan on tiny phantoms as often as it needs,
undoes one stage of it, disturbs that stage at a seeded point of its run, and demands a
clear message, nothing half-written at a final path, and a next `dvc repro` that ends
with the bytes of the undisturbed run.
"""
