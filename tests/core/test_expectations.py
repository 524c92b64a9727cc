import pandas as pd
import pytest

from stages.core.expectations import judge, library


def test_what_great_expectations_cannot_judge_is_not_passed():
    unknown = library().expectations.ExpectColumnValuesToBeUnique(column="no_such")
    with pytest.raises(RuntimeError, match="could not judge 'lost'"):
        judge(pd.DataFrame({"size": [1.0]}), {"lost": unknown}, title="sizes")
