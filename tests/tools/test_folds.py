"""Folds as experiments, by a plan whose only stage answers at once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages.core import paths
from stages.core.errors import PipelineError
from stages.scoring import seed_noise
from stages.tools import folds
from stages.tools.sweep import data_values
from tests.conftest import radiography_tree, two_sites
from tests.plan import Plan

IMAGES = 12
DICE = [0.5 + 0.04 * number for number in range(IMAGES)]

# Holds out every other image; an environment variable names a fold that breaks.
EVALUATE = """
import json, os, sys
from pathlib import Path
from ruamel.yaml import YAML

values = YAML(typ="safe").load(Path("params.yaml").read_text())
params, seed = values["split"], values["train"]["seed"]
if os.environ.get("BROKEN_FOLD") == str(params["fold"]):
    sys.exit("error: this fold is broken")
ids = range({images})
held = [i for i in ids if i % (params["folds"] or 2) == params["fold"]]
sites = ["south" if i % 3 else "north" for i in ids]
apart = [i for i in ids if sites[i] in params["hold_out_sites"]]
dice = [value + 0.01 * (seed - 11) for value in {dice}]


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


rows = [f"p{{i}},COVID,{{dice[i]:.6f}},0.5,1,1,{{sites[i]}},{{i not in apart}}"
        for i in sorted({{*held, *apart}})]
head = "pair_id,class_name,dice,iou,hd95_px,assd_px,site,is_headline"
write("data/evaluation/per_image.csv", "\\n".join([head, *rows, ""]))
held = [i for i in held if i not in apart]
mean = sum(dice[i] for i in held) / len(held)
metrics = {{"dice": {{"mean": round(mean, 6)}}, "num_images": len(held)}}
write("data/evaluation/metrics.json", json.dumps(metrics))
write("data/ingested.json", json.dumps({{"dataset": "made up"}}))
sides = [f"p{{i}},COVID,g{{i // 2}},{{'validation' if i in held else 'train'}}"
         for i in ids]
head = "pair_id,class_name,group,split"
write("data/splits/pairs.csv", "\\n".join([head, *sides, ""]))
"""


@pytest.fixture
def plan(tmp_path, tiny_values, monkeypatch):
    """A repository with that plan, a verdict of another model, and full params."""
    root = tmp_path / "plan"
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "fake.py").write_text(EVALUATE.format(images=IMAGES, dice=DICE))
    metrics = [paths.METRICS, paths.PER_IMAGE, paths.INGESTED_SUMMARY]
    stage = {
        "cmd": "python fake.py",
        "params": ["split", "train.seed"],
        "outs": [str(paths.SPLIT_PAIRS)],
        "metrics": [{str(path): {"cache": False}} for path in metrics],
    }
    # The runs end before the gate, so that its output is missing.
    gate = {
        "cmd": "false",
        "deps": [str(paths.METRICS)],
        "outs": [str(paths.VERDICT)],
    }
    YAML().dump(tiny_values, paths.PARAMS)
    (root / ".gitignore").write_text("data/.work/\n")
    return Plan.small(root, {"evaluate": stage, "gate": gate})


def cells(page: str) -> list[list[str]]:
    """The rows of the Markdown table in a text, without its head."""
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]


def test_a_broken_fold_is_named_and_the_next_call_runs_it_alone(
    plan, monkeypatch, capsys
):
    monkeypatch.setenv("BROKEN_FOLD", "1")
    with pytest.raises(PipelineError, match=r"1 of 2 runs failed.*fold-2-of-2.*broken"):
        folds.run(None, [], 2, Path("out"))
    assert cells(capsys.readouterr().out)[0][:2] == ["1 of 2 folds", "6"]

    monkeypatch.delenv("BROKEN_FOLD")
    folds.run(None, [], 2, Path("out"))
    printed = capsys.readouterr().out
    assert "1 of 2: fold-1-of-2 exists" in printed
    assert "2 of 2: fold-2-of-2 starts" in printed
    table = pd.read_csv("out/per_image.csv")
    assert sorted(table["pair_id"]) == sorted(f"p{i}" for i in range(IMAGES))
    assert list(table["fold"]) == [1] * 6 + [2] * 6
    page = Path("out/folds.md").read_text()
    rows = cells(page)
    assert rows[0][:3] == ["all", "12", f"{np.mean(DICE):.4f}"]
    assert rows[2][:3] == ["fold 2", "6", f"{np.mean(DICE[1::2]):.4f}"]
    assert str(plan.root) not in page

    # Two experiments, as any other; what another model was judged by is not in them.
    names = plan.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    names = [name for name in names if "/exec/" not in name]  # DVC's own
    assert [name.split("/")[-1][:12] for name in names] == [
        "fold-1-of-2-",
        "fold-2-of-2-",
    ]
    assert (
        json.loads(plan.git("show", f"{names[1]}:{paths.METRICS}"))["num_images"] == 6
    )
    # The working tree is as it was.
    assert plan.git("status", "--porcelain") == "?? out/"
    assert plan.git("worktree", "list").count("\n") == 0


def test_each_site_is_held_out_in_turn(plan, capsys):
    with pytest.raises(PipelineError, match="layout sites and several sites"):
        folds.run(None, [], 5, Path("out"), part="site")
    folder = two_sites(Path("in"))
    (plan.root / ".gitignore").write_text("data/.work/\nin/\n")
    plan.git("commit", "-qam", "ignore")
    folds.run(folder, [], 5, Path("out"), part="site")
    rows = cells(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [
        ["all", "12"],
        ["site north", "4"],
        ["site south", "8"],
    ]
    table = pd.read_csv("out/per_image.csv")
    assert list(table["site"]) == ["north"] * 4 + ["south"] * 8


def test_seeds_are_measured_and_read_back(plan, capsys):
    folds.run_seeds(None, [], 3, Path("out"))
    assert "over 3 seeds" in capsys.readouterr().out
    noise = seed_noise.read()
    assert list(noise.dice) == ["11", "12", "13"]
    # Twice the t quantile's 4.30 times sqrt(2) for each 0.01 of deviation.
    assert noise.standard_deviation == pytest.approx(0.01, abs=1e-6)
    assert noise.largest_difference == pytest.approx(4.3027 * 2**0.5 * 0.01, rel=1e-4)
    assert plan.git("status", "--porcelain", "-uall") == f"?? {paths.SEED_NOISE}"


def test_a_folder_is_read_wherever_runs_happen(tmp_path, tiny_values):
    YAML().dump(tiny_values, paths.PARAMS)
    top = radiography_tree(tmp_path / "set")
    values = data_values(top.relative_to(tmp_path), ["COVID"])
    assert values == {
        "ingest.source": "folder",
        "ingest.folder": str(top),
        "ingest.layout": "covid19_radiography",
        "ingest.classes": ["COVID"],
    }
    assert data_values(None, []) == {}
