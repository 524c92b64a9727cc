import pytest

from stages.core import plugins
from stages.core.errors import PipelineError
from stages.core.params import STAGES


def test_modules_packages_and_files_of_a_folder_are_its_parts():
    assert plugins.names(STAGES / "datasets" / "sources") == [
        "folder",
        "kaggle",
        "phantom",
    ]
    assert "article" in plugins.names(STAGES / "core" / "studies", ".yaml")


def test_an_unknown_name_is_answered_with_the_choices():
    with pytest.raises(PipelineError, match="no study 'x'; choose one of a, b"):
        plugins.check("study", "x", ["a", "b"])
