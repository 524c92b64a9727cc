"""The Makefile at the door: which Python it takes, what it says, the GPU's packages."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

TOOLS = ("awk", "bash", "env", "git", "grep", "rm", "touch", "sh")


@pytest.fixture
def machine(tmp_path):
    """A checkout, and a machine with the tools that make needs and no Python."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    for name in ("Makefile", "requirements.lock", "requirements-gpu.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def program(machine, name, script):
    path = machine / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(machine, *words, home=None):
    return subprocess.run(
        [shutil.which("make"), *words],
        cwd=machine,
        env={"PATH": str(machine / "bin"), "HOME": str(home or machine)},
        capture_output=True,
        text=True,
    )


def installed(machine):
    """As after `make setup`."""
    program(machine / ".venv", "python", "exit 0")
    (machine / ".venv" / ".complete").touch()
    os.utime(machine / "requirements.lock", (0, 0))
    os.utime(machine / "requirements-gpu.lock", (0, 0))


def test_the_first_python_that_runs_and_fits_is_taken(machine):
    program(machine, "python3", "exit 127")  # a name that a version manager left
    program(machine, "python3.13", "exit 1")  # another version
    program(machine, "python3.12", "exit 0")
    assert '"python3.12" -m venv' in make(machine, "-n", "setup").stdout


def test_without_a_python_one_sentence_says_how_to_get_one(machine):
    made = make(machine, "repro")
    assert made.returncode
    sentence = made.stderr.splitlines()[0]
    assert sentence.startswith("error: Python 3.11, 3.12 or 3.13 is needed")
    assert "uv python install 3.13" in sentence
    assert not (machine / ".venv").exists()


def test_cuda_is_installed_where_the_environment_is_there_already(machine):
    installed(machine)
    assert "requirements-gpu.lock" in make(machine, "-n", "repro", "GPU=1").stdout
    assert "requirements-gpu.lock" not in make(machine, "-n", "repro").stdout


def test_a_home_that_cannot_be_written_holds_no_cache(machine):
    words = ("--eval", "show: ; @echo $$UV_CACHE_DIR", "show")
    assert make(machine, *words).stdout == "\n"
    cache = f"{machine}/.venv/cache/uv\n"
    assert make(machine, *words, home="/nowhere").stdout == cache


@pytest.mark.parametrize("gone", [".venv", ".venv/bin/python"])
def test_an_environment_whose_link_leads_nowhere_is_made_again(machine, gone):
    program(machine, "python3", "exit 0")
    if gone == ".venv":
        (machine / gone).symlink_to("nowhere")
    else:
        installed(machine)
        (machine / gone).unlink()
        (machine / gone).symlink_to("nowhere")
    assert '"python3" -m venv' in make(machine, "-n", "repro").stdout
    assert not (machine / ".venv").is_symlink()


def test_a_gpu_that_is_not_used_is_named(machine):
    installed(machine)
    assert make(machine, "gpu").stdout == ""
    program(machine, "nvidia-smi", "echo GPU 0")
    assert "make repro GPU=1" in make(machine, "gpu").stdout


def test_dvc_finds_the_environment_without_activating_it():
    shown = subprocess.run(
        [sys.executable, "-c", "import os; os.system('command -v python')"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert shown.stdout.startswith(sys.prefix)


@pytest.mark.parametrize("variable", ["BASE", "OUT", "STUDY", "VERSION", "DATA"])
def test_a_variable_reaches_no_shell(machine, variable, tmp_path):
    installed(machine)
    target = {"STUDY": "study", "VERSION": "release", "DATA": "folds"}
    hostile = f"$(shell touch {tmp_path}/a) $$(touch {tmp_path}/b)`touch {tmp_path}/c`'"
    make(machine, target.get(variable, "review"), f"{variable}={hostile}")
    assert not [name for name in "abc" if (tmp_path / name).exists()]
