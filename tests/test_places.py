"""Odd places: each entry point works there, or says in a sentence what to set."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core import files, paths
from tests.conftest import lungs, png, radiography_tree
from tests.plan import Plan

pytestmark = pytest.mark.slow

# As in a container that runs as any user; no right of root is left either.
ANYBODY = ("unshare", "-U", "--map-user=4242")
ENTRY_POINTS = {
    "repro": ("dvc", "repro"),
    "doctor": ("lungfield", "doctor"),
    "predict": ("lungfield", "predict", "data/export/unet.onnx", "film.png", "-o", "ö"),
    "score": ("lungfield", "score", "data/export/unet.onnx", "SET"),
    "review": ("lungfield", "review", "HEAD"),
    "study": ("lungfield", "study", "article", "--set", "train.epochs=none"),
    "schedule": ("lungfield", "schedule"),
}
TOLD = {
    "study": "params.yaml: train.epochs must be a valid integer",
    "schedule": r"\.prefect cannot be read or written .* set HOME to a folder",
}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("no home", {"study": r"git config user\.name"}),
        (
            "larger repository",
            {"review": "git subtree split --prefix 'lungs für alle'"},
        ),
        pytest.param("worktree", {}, marks=pytest.mark.nightly),
    ],
)
def test_each_entry_point_works_or_says_what_to_set(place, told, finished, tmp_path):
    if subprocess.run([*ANYBODY, "true"], capture_output=True).returncode:
        pytest.skip("this system has no user namespaces")
    plan = Plan.at(finished).copy(tmp_path / "at home" / "lungs für alle")
    root, home = plan.root, tmp_path / "home"
    home.mkdir(mode=0o555)
    encoding, link = "ascii", "symlink"
    if place == "larger repository":
        (root / ".git").rename(root.parent / ".git")
        encoding, link = "latin-1", "hardlink"
    elif place == "worktree":
        root = tmp_path / "beside ü"
        plan.git("worktree", "add", "-q", "--detach", str(root))
    else:
        plan.git("config", "--unset", "user.name")
    cache = f"[cache]\n    dir = {plan.root}/.dvc/cache\n    type = {link}\n"
    (root / ".dvc" / "config.local").write_text(cache, "utf-8")
    files.remove(root / paths.SPLIT_PAIRS.parent)
    (root / "film.png").write_bytes(png(lungs(1, image_size=60)[0]))
    radiography_tree(root / "SET", {"COVID": 2})
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": encoding}
    if place != "no home":
        environment["HOME"] = str(home)
    for name, words in ENTRY_POINTS.items():
        if name == "schedule" and place == "no home":  # then it serves
            continue
        tool = Path(sys.executable).with_name(words[0])
        done = subprocess.run(
            [*ANYBODY, str(tool), *words[1:]],
            cwd=root,
            env=environment,
            capture_output=True,
            encoding=encoding,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        expected = (TOLD | told).get(name)
        if expected:
            assert re.search(f"^error: .*{expected}", done.stderr, re.M), said
        assert done.returncode == bool(expected), said
        if name == "predict":
            assert " in ö" in said or r" in \xf6" in said
    assert (root / paths.SPLIT_PAIRS).is_symlink() == (link == "symlink")
