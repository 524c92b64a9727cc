"""Does Great Expectations say which rows, silently, and never pass what it skipped?"""

import pandas as pd
import pytest

from stages.core.expectations import judge, library

TABLE = pd.DataFrame({"pair_id": ["a", "b", "c", "d"], "size": [1.0, 5.0, None, 9.0]})


def between(**bounds: float):
    return library().expectations.ExpectColumnValuesToBeBetween(column="size", **bounds)


def test_rows_are_positions_of_the_unexpected():
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


def test_what_cannot_be_judged_is_not_passed():
    unknown = library().expectations.ExpectColumnValuesToBeUnique(column="no_such")
    with pytest.raises(RuntimeError, match="could not judge 'lost'"):
        judge(TABLE, {"lost": unknown}, title="sizes")


def test_is_silent_and_leaves_nothing(capfd, isolated):
    judge(TABLE, {"small": between(max_value=4)}, title="sizes")
    assert capfd.readouterr() == ("", "")
    assert list(isolated.iterdir()) == []
