"""The house rules, as tests."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core.params import Params
from tests.conftest import ROOT, run_python

PLAN = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = list(PLAN["stages"])
# They hold no value and no code that a result depends on: editing them reruns nothing.
EXEMPT = {
    "stages/__init__.py",
    "stages/core/__init__.py",
    "stages/core/params.py",
    "stages/core/paths.py",
    "stages/core/plugins.py",
    "stages/datasets/__init__.py",
    "stages/scoring/__init__.py",
}
# A module imports from its own room and from rooms of a lower number, never upwards
# or sideways.
RANK = {
    "core": 0,
    "datasets": 1,
    "scoring": 2,
    "nn": 3,
    **dict.fromkeys(STAGES, 4),
    "inference": 5,
    "review": 5,
    "flow": 5,
    "tools": 6,
    "cli": 7,
    "benchmarks": 8,
}
# The model card and the provenance tell how the model was trained and judged.
JUDGED = {"evaluate.keep_components", "evaluate.flip_tta", "evaluate.threshold"}
# Evaluation sets up TensorFlow as the training did.
TOLD = {"export": JUDGED | {"train"}, "evaluate": {"train.threads"}}
TENSORFLOW_ROOMS = (
    "stages/nn",
    "stages/train",
    "stages/evaluate",
    "stages/export",
)


def stage_files(stage: str) -> list[Path]:
    folder = ROOT / "stages" / stage
    return (
        sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    )


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules a file names in its imports, as dotted names, guesses included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def project_files(module: str) -> list[Path]:
    """The project's files that importing a dotted name loads, with its packages."""
    parts = module.split(".")
    places = [ROOT.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
    files = [place / "__init__.py" for place in places]
    return [p for p in [*files, places[-1].with_suffix(".py")] if p.is_file()]


def found_by_name(stage: str) -> list[Path]:
    """Modules a stage loads by their name in params, not by an import statement."""
    folders = {
        "ingest": ("datasets/layouts", "datasets/sources"),
        "train": ("nn/models",),
    }.get(stage, ())
    return [p for f in folders for p in (ROOT / "stages" / f).rglob("*.py")]


def reached(stage: str) -> set[Path]:
    waiting, seen = stage_files(stage) + found_by_name(stage), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imported(path):
            if module.split(".")[0] == "stages":
                waiting += project_files(module)
    return seen


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def source_files() -> list[Path]:
    return sorted(
        [*(ROOT / "stages").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_one_word_in_every_place(stage):
    assert PLAN["stages"][stage]["cmd"] == f"python -m stages.{stage}"
    assert set(PLAN["stages"][stage]["params"]) == {stage, *TOLD.get(stage, ())}
    assert PLAN["stages"][stage]["desc"]
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert stage in sections
    assert all(path.is_file() for path in stage_files(stage))
    assert (ROOT / "tests" / f"test_{stage}.py").is_file()
    code = "".join(p.read_text("utf-8") for p in stage_files(stage))
    assert f"def {stage}(" in code
    assert re.search(r"^def main\(\)", code, re.M)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_every_file_the_stage_imports(stage):
    """DVC does not follow imports: a file missing here would silently not rerun it."""
    deps = PLAN["stages"][stage]["deps"]
    needed = {relative(path) for path in reached(stage)} - EXEMPT
    uncovered = {
        path
        for path in needed
        if path not in deps and not any(path.startswith(f"{dep}/") for dep in deps)
    }
    assert not uncovered


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_nothing_that_the_stage_does_not_use(stage):
    needed = {relative(path) for path in reached(stage)}
    for dep in PLAN["stages"][stage]["deps"]:
        if dep.startswith("stages/"):
            assert any(p == dep or p.startswith(f"{dep}/") for p in needed), dep


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "benchmarks" or len(parts) == 1 else parts[1]


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_rooms_import_only_from_rooms_below(path):
    own = room_of(relative(path).removesuffix(".py").replace("/", "."))
    for module in imported(path):
        if project_files(module) and room_of(module) not in {own, "stages"}:
            assert RANK[room_of(module)] < RANK[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_tensorflow_stays_in_its_rooms(path):
    if not relative(path).startswith((*TENSORFLOW_ROOMS, "benchmarks")):
        assert not {m.split(".")[0] for m in imported(path)} & {"tensorflow", "keras"}


def test_outputs_that_git_holds_are_metrics_or_plots():
    """`cache: false` under plain `outs` would switch a stage's run-cache off."""
    for stage in STAGES:
        for out in PLAN["stages"][stage].get("outs", []):
            assert isinstance(out, str), f"{stage}: {out} should be cached plainly"


def test_importing_a_data_stage_needs_no_tensorflow_and_does_nothing(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None;"
        "import stages.ingest, stages.validate, stages.split, stages.gate"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
