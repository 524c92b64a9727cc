"""Measures speed and accuracy, each figure beside a peer measured in the same run.

`benches/` has one module per benchmark, found by its name, with

- its docstring: the figure, its peer and the target;
- `LONG`: whether it runs only when named;
- `bench(options)`: the rows.

Absolute figures describe the machine; ratios within one run describe the code.
"""
