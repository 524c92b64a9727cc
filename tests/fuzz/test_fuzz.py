"""Are 500 damaged files read or refused?"""

import pytest

from tests.fuzz import __main__ as parent
from tests.fuzz import worker
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    count = parent.shares(500)[name]
    tally = worker.run(name, 0, count, seed=1, folder=tmp_path)
    assert not tally.findings
    assert tally.inputs == count
    # As they are, the files are read: a refusal is due to the damage.
    assert tally.accepted
    assert tally.refused or count <= 10
