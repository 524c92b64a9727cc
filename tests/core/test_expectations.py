"""Does Great Expectations say which rows, silently, and never pass what it skipped?"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from stages.core import paths
from stages.core.expectations import imported_meanwhile, judge, library
from tests.conftest import ROOT

TABLE = pd.DataFrame({"pair_id": ["a", "b", "c", "d"], "size": [1.0, 5.0, None, 9.0]})


def between(**bounds: float):
    return library().expectations.ExpectColumnValuesToBeBetween(column="size", **bounds)


def test_rows_are_positions_of_the_unexpected() -> None:
    verdicts = judge(
        TABLE,
        {"small": between(max_value=4), "any": between(min_value=0)},
        title="sizes",
    )
    assert verdicts["small"].rows == (1, 3)
    assert not verdicts["small"].success
    assert verdicts["small"].gx_type == "expect_column_values_to_be_between"
    # A missing value is no offence.
    assert verdicts["any"].success
    assert verdicts["any"].rows == ()


def test_positions_do_not_depend_on_the_index() -> None:
    shuffled = TABLE.set_index(pd.Index([7, 7, 3, 1]))
    verdicts = judge(shuffled, {"small": between(max_value=4)}, title="sizes")
    assert verdicts["small"].rows == (1, 3)


def test_equal_expectations_keep_their_names() -> None:
    verdicts = judge(
        TABLE, {"one": between(max_value=6), "two": between(max_value=8)}, title="t"
    )
    assert list(verdicts) == ["one", "two"]
    assert [verdict.rows for verdict in verdicts.values()] == [(3,), (3,)]


def test_what_cannot_be_judged_is_not_passed() -> None:
    unknown = library().expectations.ExpectColumnValuesToBeUnique(column="no_such")
    with pytest.raises(RuntimeError, match="could not judge 'lost'"):
        judge(TABLE, {"lost": unknown}, title="sizes")


def test_is_silent_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str], isolated: Path
) -> None:
    judge(TABLE, {"small": between(max_value=4)}, title="sizes")
    assert capfd.readouterr() == ("", "")
    assert list(isolated.iterdir()) == []


def test_writes_the_librarys_own_pages_when_asked() -> None:
    judge(
        TABLE,
        {"small": between(max_value=4)},
        title="sizes",
        data_docs=paths.QUALITY_DATA_DOCS,
    )
    page = (paths.QUALITY_DATA_DOCS / "index.html").read_text(encoding="utf-8")
    assert "sizes" in page
    assert list((paths.WORK / "partial").iterdir()) == []


def test_the_import_meanwhile_leaves_python_as_it_was() -> None:
    before = sys.getswitchinterval()
    with imported_meanwhile():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
    assert library().__name__ == "great_expectations"


def test_its_import_leaves_out_what_distributions_alone_need() -> None:
    """And they are judged as ever, in a process that begins afresh."""
    code = """
        import gc, sys
        import pandas as pd
        from stages.core.expectations import judge, library
        gxe = library().expectations
        assert gc.isenabled()
        assert "scipy.stats._stats_py" not in sys.modules
        weights = {"values": ["a", "b"], "weights": [0.5, 0.5]}
        for text, most, expected in (("ab", 0.1, True), ("aaab", 0.1, False)):
            expectation = gxe.ExpectColumnKLDivergenceToBeLessThan(
                column="x", partition_object=weights, threshold=most
            )
            table = pd.DataFrame({"x": list(text)})
            verdict = judge(table, {"even": expectation}, title=text)["even"]
            assert verdict.success is expected, (text, verdict)
        assert "scipy.stats._stats_py" in sys.modules
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
