"""How fast and how good, each figure beside a yardstick measured in the same run.

One module a benchmark in `benches/`, found by name, with

- its docstring: what is measured, beside what, and what is to be reached;
- `OPTIONS`: which fields of `Options` it uses, besides `quick`;
- `LONG`: whether it is left out unless it is named;
- `bench(options)`: the rows.

Absolute figures say something about the machine; ratios, within one run, about the
code. TensorFlow is imported where a benchmark needs it, never before.
"""
