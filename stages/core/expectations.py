"""Great Expectations, run on a table in memory: which rows break which expectation."""

import contextlib
import gc
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core import files

_TURN_S = 0.0002  # Python's is 5 ms


@dataclass(frozen=True)
class Verdict:
    """What Great Expectations found for one expectation."""

    success: bool
    rows: tuple[int, ...]  # positions of the unexpected rows, ascending
    gx_type: str  # Great Expectations' own name of the expectation


def judge(
    table: pd.DataFrame,
    expectations: Mapping[str, Any],
    *,
    title: str,
    data_docs: Path | None = None,
) -> dict[str, Verdict]:
    """Judges a table; nothing is left on disk, sent anywhere or drawn on the terminal.

    Args:
        table: Any table; missing values are nobody's mistake here, so what may not
            be missing needs a column that says so.
        expectations: Names to expectations, made by `library().expectations`.
        title: Name of the suite, for Great Expectations' own pages.
        data_docs: Where to write those pages; None writes none.

    Returns:
        A verdict under each name, in the order given.
    """
    gx, context = _context()
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
    index = [name for name in ("row", "pair_id") if name in rows.columns]
    outcome = definition.run(
        batch_parameters={"dataframe": rows},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": index,
            "return_unexpected_index_query": False,
        },
    )
    if data_docs is not None:
        _write_data_docs(context, data_docs)
    found: dict[str, Verdict] = {}
    for result in outcome.results:
        config = result.expectation_config
        if result.exception_info.get("raised_exception", True):
            # Neither met nor broken: to go on would be to accept what nobody checked.
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
    """The `great_expectations` module, silent: it sends nothing and logs warnings only.

    Its import takes seconds, hence not at the top of a file.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with _quick_imports():
        import great_expectations as gx
        from great_expectations.data_context.types import base

    base.logger.setLevel(logging.WARNING)  # the import raised it
    return gx


@contextlib.contextmanager
def _quick_imports() -> Iterator[None]:
    """Imports Great Expectations in 0.6 of the time.

    Without `scipy.stats`, which expectations of distributions alone use: it is imported
    at its first use. And without a search for garbage where there is none yet.
    """
    name = "scipy.stats"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = sys.modules["scipy"].stats = module  # type: ignore[attr-defined]
        spec.loader.exec_module(module)
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def imported_meanwhile() -> Iterator[None]:
    """Imports Great Expectations in a thread while the block's threads work.

    The import is 4 s of Python, and a thread that decodes asks for Python's lock ten
    times a pair: with turns as long as Python's the one would stop the others.
    """

    def load() -> None:
        with contextlib.suppress(Exception):  # who needs it imports it, and says why
            library()

    turn = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    # No daemon: an exit in the midst of an import could end in a crash.
    threading.Thread(target=load).start()
    try:
        yield
    finally:
        sys.setswitchinterval(turn)


def _context() -> tuple[Any, Any]:
    """Great Expectations and a context that lives in memory only."""
    gx = library()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return gx, context


def _write_data_docs(context: Any, folder: Path) -> None:
    """Great Expectations' own pages; they carry the clock, so nothing tracks them."""
    with files.replacing(folder) as partial:
        for name in context.get_site_names():
            context.delete_data_docs_site(name)
        context.add_data_docs_site(
            site_name="local",
            site_config={
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(partial.resolve()),
                },
            },
        )
        context.build_data_docs()
