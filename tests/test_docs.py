"""The documentation builds, its links work, and it agrees with the code."""

import doctest
import importlib
import os
import re
import runpy
import subprocess
import sys

import pytest
from typer.main import get_command

from stages.cli import app
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))
# Where an example stands in a docstring; other modules are not imported for it.
WITH_EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for room in ("stages", "benchmarks")
    for path in (ROOT / room).rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_give_what_they_say(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", REFERENCE["PAGES"])
def test_generated_pages_are_up_to_date(name):
    page = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert page == REFERENCE["PAGES"][name](), "run `make docs` and commit the page"


def test_the_site_builds_without_a_broken_link_and_needs_no_network(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = [page.read_text("utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > len(DOCS)  # and a page for what is not found
    from_the_network = re.compile(r"<(?:script|img|link|iframe)[^>]+=.https?:")
    assert not [page for page in pages if from_the_network.search(page)]


@pytest.mark.parametrize("path", TOP, ids=lambda path: path.name)
def test_links_of_the_top_pages_lead_somewhere(path):
    text = path.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 160
    assert len(README.encode()) <= 8 * 1024


@pytest.mark.parametrize("path", [*TOP[::2], *DOCS], ids=lambda path: path.name)
def test_params_that_pages_name_exist(path):
    known = REFERENCE["comments"]((ROOT / "params.yaml").read_text("utf-8"))
    sections = "|".join({name.partition(".")[0] for name in known})
    for name in re.findall(
        rf"[`' ]((?:{sections})\.[a-z_.]+)=", path.read_text("utf-8")
    ):
        assert any(f"{name}.".startswith(f"{key}.") for key in known), name
    for name in re.findall(rf"`((?:{sections})\.[a-z_.]+)`", path.read_text("utf-8")):
        is_file = name.endswith((".json", ".py"))
        assert is_file or any(f"{key}.".startswith(f"{name}.") for key in known), name


@pytest.mark.parametrize("path", [*TOP, *DOCS], ids=lambda path: path.name)
def test_commands_that_pages_name_exist(path):
    text = path.read_text("utf-8")
    commands = {f"lungfield {name}" for name in get_command(app).commands}
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    named = re.findall(r"^(?:> )?((?:lungfield|make) [a-z]+)", text, re.M)
    named += re.findall(r"`((?:lungfield|make) [a-z]+)", text)
    assert set(named) <= commands | {f"make {target}" for target in targets}
