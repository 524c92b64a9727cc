"""A temporary repository that holds the working tree, with tiny params, under DVC."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import ROOT, with_overrides

MADE = ("data/", ".dvc/cache", ".dvc/tmp", "dvc.lock")


class Plan:
    """A clone in which stages run as a user runs them: as processes, by `dvc`."""

    def __init__(self, root: Path, values: dict[str, Any]) -> None:
        """Copies what Git holds or would hold, but for outputs, and commits it."""
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            keep = not name.startswith(MADE) or name.endswith(
                (".gitignore", "README.md")
            )
            if keep and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        self.write_params(values)
        self._begin()

    @classmethod
    def small(cls, root: Path, stages: dict[str, Any]) -> "Plan":
        """The files that lie in a folder, and a plan, as a repository under DVC."""
        plan = cls.at(root)
        with (root / "dvc.yaml").open("w", encoding="utf-8") as file:
            YAML().dump({"stages": stages}, file)
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        plan._begin()
        return plan

    def _begin(self) -> None:
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "test@example.org")
        self.git("config", "user.name", "test")
        self.commit("begin")

    @classmethod
    def at(cls, root: Path) -> "Plan":
        """The repository that is already there."""
        plan = cls.__new__(cls)
        plan.root = root
        return plan

    def copy(self, root: Path) -> "Plan":
        """A copy of all of it, its cache and outputs too."""
        shutil.copytree(self.root, root, symlinks=True)
        return Plan.at(root)

    def write_params(self, values: dict[str, Any]) -> None:
        """Replaces params.yaml, with a folder of weights that DVC can hash."""
        if "train" in values:
            place = {"train.initial_weights": "data/initial_weights"}
            values = with_overrides(values, place)
        with (self.root / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(values, file)

    def git(self, *words: str) -> str:
        """Runs git; returns what it printed."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commits everything; returns the revision."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def environment(self) -> dict[str, str]:
        """The user's, with this interpreter first and no telemetry."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
        return env | {"PATH": path, "DVC_NO_ANALYTICS": "1"}

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a Python module, such as `dvc`, in the repository."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(words)} ended with {done.returncode}\n"
                f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
            )
        return done

    def repro(self, *words: str) -> dict[str, str]:
        """Runs `dvc repro`; returns what became of each stage.

        Returns:
            Stage name to `run`, `cached` (restored from the run-cache) or `unchanged`.
        """
        return outcomes(self.run("dvc", "repro", *words).stdout)


def outcomes(printed: str) -> dict[str, str]:
    """What `dvc repro` printed, as a word a stage."""
    found = {}
    for name, word in (
        (r"Stage '(\w+)' didn't change, skipping", "unchanged"),
        (r"Stage '(\w+)' is cached - skipping run", "cached"),
        (r"Running stage '(\w+)'", "run"),
    ):
        found |= dict.fromkeys(re.findall(name, printed), word)
    return found
