"""Great Expectations, run on a table in memory: which rows break which expectation."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Verdict:
    """The result of one expectation."""

    success: bool
    rows: tuple[int, ...]  # positions of the unexpected rows, ascending
    gx_type: str  # Great Expectations' own name of the expectation


def judge(
    table: pd.DataFrame, expectations: Mapping[str, Any], *, title: str
) -> dict[str, Verdict]:
    """Judges a table by expectations of `library().expectations`, in their order.

    Missing values break no expectation. Nothing is written to disk or to the network.
    """
    gx = library()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    rows = table.reset_index(drop=True).rename_axis("row").reset_index()
    batch = (
        context.data_sources.add_pandas("memory")
        .add_dataframe_asset(title)
        .add_batch_definition_whole_dataframe("all rows")
    )
    suite = gx.ExpectationSuite(name=title)
    for name, expectation in expectations.items():
        expectation.meta = {"name": name}
        suite.add_expectation(expectation)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=title, data=batch, suite=context.suites.add(suite))
    )
    outcome = definition.run(
        batch_parameters={"dataframe": rows},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row"],
            "return_unexpected_index_query": False,
        },
    )
    found: dict[str, Verdict] = {}
    for result in outcome.results:
        config = result.expectation_config
        if result.exception_info.get("raised_exception", True):
            # To go on would accept rows that were not checked.
            raise RuntimeError(
                f"Great Expectations could not judge {config.meta['name']!r}: "
                f"{result.exception_info}"
            )
        listed = result.result.get("unexpected_index_list") or []
        found[config.meta["name"]] = Verdict(
            success=bool(result.success),
            rows=tuple(sorted({int(entry["row"]) for entry in listed})),
            gx_type=config.type,
        )
    return {name: found[name] for name in expectations}


def library() -> Any:
    """The `great_expectations` module, silenced; its import takes seconds."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.data_context.types import base

    base.logger.setLevel(logging.WARNING)  # the import raised it
    return gx
