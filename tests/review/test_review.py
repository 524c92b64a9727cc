"""The review against a repository whose every change is known."""

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from stages.core import paths
from stages.core.errors import PipelineError
from stages.core.params import flatten
from stages.gate import Check
from stages.review import comparison, panels, review, run
from stages.review.render import LIMIT, headline, markdown, page
from stages.review.revision import pull, revisions
from stages.review.run_results import CACHED
from stages.review.table import ABSENT, part_rows
from stages.review.verdict import Kind, Verdict, verdict
from stages.scoring.metrics import METRICS, Metric
from tests.review.review_repo import ReviewRepository, written

MINUS = "\N{MINUS SIGN}"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(shipped_values, tmp_path_factory):
    return ReviewRepository(tmp_path_factory.mktemp("review"), shipped_values)


@pytest.fixture
def reviewed(repository, monkeypatch):
    """Reviews two commits of the repository by name; None is the working tree."""

    def compare(base: str, head: str | None):
        monkeypatch.chdir(repository.root)
        commits = repository.commits
        return review(*revisions(commits[base], head and commits[head]))

    return compare


def test_a_change_that_does_nothing(repository, reviewed):
    found = reviewed("base", "retrained")
    images = found.comparison.counts
    assert found.verdict.kind is Kind.SAME_MODEL
    assert images["equal"] == len(repository.per_image("base")) > 8
    assert images["higher"] == images["lower"] == 0
    assert not found.panels
    changed = [(c.name, c.base, c.head) for c in found.changes.params]
    assert changed == [("train.learning_rate_schedule", '"cosine"', '"constant"')]
    reruns = {r.stage: (r.why, r.outputs_differ) for r in found.changes.reruns}
    assert reruns["train"] == (["train.learning_rate_schedule"], False)
    assert set(reruns) == {"train", "export"}
    assert not found.notes
    assert {row.mark for row in found.metrics} == {"same", ""}
    text = markdown(found)
    assert text.startswith(
        "## ⚪ The same model: byte for byte, and so are all scores\n"
    )
    assert "No metric changed." in text
    assert "- Data: unchanged" in text


def test_known_images_worsened(repository, reviewed):
    found = reviewed("base", "worse")
    before, after = repository.per_image("base"), repository.per_image("worse")
    differences = {n: after.dice[n] - before.dice[n] for n in before.index}
    order = sorted(repository.worsened, key=differences.__getitem__)
    dice = found.comparison.differences["dice"]

    assert found.verdict.kind is Kind.WORSE
    assert found.worst == order
    assert found.best == [repository.improved]
    assert set(found.panels) == {*repository.worsened, repository.improved}
    assert found.comparison.counts["lower"] == len(repository.worsened)
    assert found.comparison.counts["higher"] == 1
    assert (
        found.comparison.counts["equal"] == len(before) - len(repository.worsened) - 1
    )
    assert dice.mean == pytest.approx(statistics.mean(differences.values()), abs=1e-9)
    assert dice.base == pytest.approx(before.dice.mean(), abs=1e-9)
    assert dice.low < dice.mean < dice.high < 0

    for row in found.parts["class"]:
        some = [n for n in before.index if n.startswith(f"{row.name}-")]
        assert row.num_images == str(len(some))
        marked = f"({len(some)} group" if len(some) < 10 else MINUS
        assert marked in row.interval
        assert row.base == f"{before.dice[some].mean():.4f}"
        assert row.head == f"{after.dice[some].mean():.4f}"

    rows = {row.name: row for row in found.metrics}
    assert rows["dice.mean"].mark == rows["hd95_px.mean"].mark == "worse"
    assert rows["hd95_px.mean"].difference.startswith("+")
    assert rows["dice.mean"].is_shown
    assert rows["dice.mean"].bound == "≥ 0"

    for panel in found.panels.values():
        assert (panel.base != panel.head).any()
    text = markdown(found)
    for name in order:
        assert f"| {name} |" in text
    assert f"{dice.mean:+.4f}".replace("-", MINUS) in text
    points = reviewed("worse", "base").history
    assert [point.mean for point in points] == pytest.approx(
        [before.dice.mean(), after.dice.mean()], abs=1e-6
    )
    # The images of the page stand worst first.
    anchors = re.findall(r'<tbody id="[^"]*"[^>]* data-id="([^"]*)"', page(found))
    assert anchors[: len(order)] == order
    assert anchors[-1] == repository.improved
    shown = panels.montage(found.panels[name] for name in found.worst)
    assert cv2.imdecode(np.frombuffer(shown, np.uint8), 1).shape == (570, 1024, 3)


def test_other_validation_images(repository, reviewed):
    found = reviewed("base", "resplit")
    before, after = repository.per_image("base"), repository.per_image("resplit")
    common = [name for name in before.index if name in after.index]
    assert 0 < len(common) < len(before)
    differences = [after.dice[n] - before.dice[n] for n in common]

    # All images together, the head looks better; on those that both scored it is worse.
    assert after.dice.mean() > before.dice.mean() or len(common) > len(after) / 2
    assert found.verdict.kind is Kind.WORSE
    assert found.comparison.num_common == len(common)
    dice = found.comparison.differences["dice"]
    assert dice.mean == pytest.approx(statistics.mean(differences), abs=1e-9)
    assert dice.num_images == len(common)
    assert {row.difference for row in found.metrics} == {""}
    assert {row.mark for row in found.metrics} == {""}
    rows = {row.name: row for row in found.common}
    assert rows["dice.mean"].head == f"{after.dice[common].mean():.4f}"
    assert rows["dice.p05"].base == f"{before.dice[common].quantile(0.05):.4f}"
    assert found.notes[0].is_warning
    assert f"over the {len(common)} images that both scored" in found.notes[0].text
    moved = found.changes.data
    new, old = (
        set(after.index) - set(before.index),
        set(before.index) - set(after.index),
    )
    assert set(moved.pairs["moved from training to validation"]) == new
    assert set(moved.pairs["moved from validation to training"]) == old
    assert found.comparison.counts["only in base"] == len(before) - len(common)


def test_the_same_ids_over_other_pictures_are_not_compared(reviewed):
    found = reviewed("base", "redrawn")
    assert found.verdict.kind is Kind.NOT_COMPARABLE
    assert not found.comparison.differences
    assert not found.panels
    assert not found.common
    assert found.comparison.counts["other picture"] > 0
    assert {row.difference for row in found.metrics} == {""}
    assert found.changes.data.pairs["with other pixels or another class"]
    versions = [c for c in found.changes.data.facts if c.name == "version"]
    assert [(c.base, c.head) for c in versions] == [('"seed 7"', '"seed 8"')]
    num = found.comparison.counts["other picture"]
    assert f"{num} ids exist on both sides but name different" in found.notes[0].text
    assert re.search(r"\d\.\d{4}", headline(found)) is None
    html = page(found)
    assert "No image was scored by both sides." in html


def test_data_that_grew(repository, reviewed):
    found = reviewed("base", "grown")
    assert found.verdict.kind is Kind.SAME_MODEL
    num = found.comparison.num_common
    assert f"No metric changed over the {num} images that both" in markdown(found)
    data = found.changes.data
    assert len(data.pairs["added"]) == 4
    assert set(repository.rejected) <= set(data.rejected)
    assert all("foreground" in reason for reason in data.rejected.values())
    assert not data.pairs["removed"]
    assert not data.pairs["with other pixels or another class"]
    counts = {c.name: (c.base, c.head) for c in data.facts}
    assert counts["num_pairs"] == ("20", "24")
    back = reviewed("grown", "base").changes.data
    assert back.pairs["removed"] == data.pairs["added"]
    assert set(back.pairs["newly accepted"]) == set(repository.rejected)
    assert not back.pairs["added"]
    assert not back.rejected


def test_a_gate_that_fails(repository, reviewed):
    found = reviewed("base", "failing")
    assert (found.base.gate, found.head.gate) == (True, False)
    assert found.verdict.kind is Kind.GATE_FAILED
    mean = repository.per_image("failing").dice.mean()
    assert found.verdict.sentence.startswith(f"dice.mean {mean:.4f} < 0.999; ")
    assert not found.notes  # that gate and export are stale is what failing means
    row = next(row for row in found.metrics if row.name == "dice.mean")
    assert row.bound == "≥ 0.999"
    assert row.passed is False
    text = markdown(found)
    assert "head **FAILED**" in text
    assert f"| export.parameters | 12,345 | {ABSENT} |" in text
    back = reviewed("failing", "base")
    assert (back.base.gate, back.head.gate) == (False, True)
    assert back.verdict.kind is Kind.SAME_MODEL
    # A better Dice makes up for nothing.
    better = reviewed("worse", "failing")
    assert better.comparison.differences["dice"].low > 0
    assert better.verdict.kind is Kind.GATE_FAILED
    assert [rerun.stage for rerun in better.changes.reruns] == ["evaluate"]


def test_neither_few_groups_nor_a_seeds_noise_judge(repository, reviewed):
    few = reviewed("worse", "few")
    assert few.verdict.kind is Kind.FEW_GROUPS
    assert few.verdict.sentence.startswith("2 groups of images, at least 5 are needed")
    repository.plan.git("checkout", "-q", repository.commits["worse"])
    noise = {"1": 0.7, "2": 0.8, "3": 0.9}
    facts = {"dataset": "phantoms", "num_images": len(few.base.per_image)}
    with written(
        repository.root / paths.SEED_NOISE, json.dumps(facts | {"dice": noise})
    ):
        found = reviewed("base", None)
    assert found.verdict.kind is Kind.WITHIN_NOISE
    assert "another seed alone moves it by up to 0.60" in found.verdict.sentence
    for judged in (few, found):
        assert {row.mark for row in judged.metrics} <= {"same", ""}


def test_results_that_are_not_of_this_code_are_said_to_be(repository, reviewed):
    values = paths.PARAMS
    repository.plan.git("checkout", "-q", repository.commits["worse"])
    changed = (repository.root / values).read_text().replace("epochs: 1", "epochs: 2")
    with written(repository.root / values, changed):
        found = reviewed("base", None)
    assert "train.epochs changed after it ran" in found.changes.stale["head"]["train"]
    assert not found.changes.stale["base"]
    assert "The results of the head are not those of its code" in found.notes[0].text
    assert found.verdict.kind is Kind.STALE
    # No word or colour below it judges what it does not.
    assert {row.mark for row in found.metrics} <= {"same", ""}
    assert '<main class="neutral">' in page(found)
    assert '<main class="neutral">' not in page(reviewed("base", "worse"))
    assert found.verdict.sentence == (
        "train of the head, because train.epochs changed after it ran"
    )
    unet = repository.root / "stages/nn/losses.py"
    with written(unet, unet.read_text() + "# another\n"):
        found = reviewed("base", None)
    assert found.changes.stale["head"]["train"] == ["stages/nn changed after it ran"]
    assert list(found.changes.code) == ["stages/nn/losses.py"]
    assert "depends on changed (stages/nn/losses.py)" in str(found.notes)
    assert reviewed("base", None).changes.stale["head"] == {}
    # A base that the head has not got.
    assert "The base has 1 commit that the head lacks" in str(
        reviewed("retrained", "worse").notes
    )


def test_command_writes_the_same_bytes_each_time(repository, tmp_path, monkeypatch):
    plan, commits = repository.plan, repository.commits
    pair = commits["base"], commits["worse"]
    lock = (repository.root / "dvc.lock").read_bytes()
    done = plan.run("stages.cli", "review", *pair, "-o", str(tmp_path / "first"))
    assert done.stdout.startswith(f"Worse: mean Dice {MINUS}")
    monkeypatch.chdir(repository.root)
    words = {"fetch": False, "rebuild": False, "fail_on_drift": False}
    run(*pair, tmp_path / "again", **words)
    for name in ("review.md", "review.html", "review.png"):
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "again" / name).read_bytes()
        assert str(repository.root).encode() not in first
    assert (repository.root / "dvc.lock").read_bytes() == lock
    assert not plan.git("status", "--porcelain")
    with pytest.raises(PipelineError, match=r"README\.md/below should be a"):
        run(*pair, repository.root / "README.md/below", **words)
    with pytest.raises(PipelineError, match="results have drifted: Worse"):
        run(*pair, tmp_path / "again", **words | {"fail_on_drift": True})


def test_fresh_clone_says_what_it_lacks_and_pull_fetches_it(
    repository, tmp_path, monkeypatch
):
    commits = repository.commits
    clone = repository.clone(tmp_path / "clone")
    monkeypatch.chdir(clone.root)
    pair = revisions(commits["base"], commits["worse"])
    found = review(*pair)
    # All that Git holds.
    assert found.verdict.kind is Kind.WORSE
    assert set(found.worst) == set(repository.worsened)
    assert set(found.comparison.images["group"]) == set(
        found.comparison.images["pair_id"]
    )
    notes = " ".join(note.text for note in found.notes)
    assert "each image counts as one" in notes
    assert "data/evaluation/predictions.parquet of the base; `--pull` fetches" in notes
    assert {(p.base, p.head) for p in found.panels.values()} == {(None, None)}
    assert "prediction or image is not in the DVC cache" in page(found)

    with pytest.raises(PipelineError, match="DVC remote should be configured"):
        pull(pair, CACHED)

    # A cache has the form of a remote.
    remote = f"url = {repository.root / '.dvc' / 'cache'}"
    text = f"[core]\nremote = store\n['remote \"store\"']\n{remote}\n"
    (clone.root / ".dvc" / "config.local").write_text(text)
    pair = revisions(commits["base"], commits["worse"])
    pull(pair, CACHED)
    found = review(*pair)
    assert found.base.splits is not None
    assert all(all(p.sources.values()) for p in found.panels.values())


def test_a_repository_that_cannot_be_compared_is_one_sentence(
    repository, tmp_path, monkeypatch
):
    def error_of(base: str) -> str:
        with pytest.raises(PipelineError) as caught:
            review(*revisions(base, None))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    monkeypatch.chdir(repository.root)
    assert "Git revision 'nonsense' is unknown here" in error_of("nonsense")
    assert "'--all' is unknown" in error_of("--all")
    before = repository.commits["before"]
    assert "holds no data/evaluation/metrics.json" in error_of(before)
    monkeypatch.chdir(repository.root / "stages")
    assert "should be its root" in error_of("HEAD")
    shallow = repository.clone(tmp_path / "shallow", "--depth=1", "--no-single-branch")
    monkeypatch.chdir(shallow.root)
    assert "git fetch --unshallow" in error_of("HEAD~1")
    monkeypatch.chdir(tmp_path)
    assert "should be a Git repository but is not" in error_of("HEAD")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (paths.METRICS, "{", "should be JSON but is not"),
        (paths.PER_IMAGE, "pair_id,class_name,iou\n", "it has no column dice"),
        (paths.PER_IMAGE, "pair_id,class_name,dice\na,b,7\n", "dice from 0 to 1"),
        (paths.SEED_NOISE, '{"dice": 3}', "should be its summary"),
        (paths.PARAMS, "a: [", "should be YAML"),
    ],
)
def test_a_corrupt_file_is_one_sentence(
    repository, monkeypatch, path, content, expected
):
    monkeypatch.chdir(repository.root)
    commits = repository.commits
    repository.plan.git("checkout", "-q", commits["base"])
    with (
        written(repository.root / path, content),
        pytest.raises(PipelineError, match=re.escape(expected)) as caught,
    ):
        review(*revisions(commits["base"], None))
    assert str(path) in str(caught.value)
    assert "the working tree" in str(caught.value)


HOSTILE = [
    "<script>alert(1)</script>",
    'a" onmouseover="alert(1)',
    "| table | breaks |",
    "@everyone and #1 and https://example.org",
    "![x](https://example.org/x.png)",
    "\u202egnp.exe",
    "</style><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
]


@pytest.fixture
def hostile(repository, monkeypatch):
    """A review of a head whose ids and classes are an attacker's."""
    monkeypatch.chdir(repository.root)
    commits = repository.commits
    repository.plan.git("checkout", "-q", commits["base"])
    table = pd.read_csv(paths.PER_IMAGE)
    metrics = json.loads(paths.METRICS.read_text())
    for column in ("pair_id", "class_name"):
        table.loc[: len(HOSTILE) - 1, column] = HOSTILE
    content = table.to_csv(index=False, float_format="%.6f")
    metrics |= {"<b>bold</b>": "<i>text</i>", "by_class": {HOSTILE[0]: {}}}
    monkeypatch.setattr(comparison, "TOLERANCE", 0.0)
    with (
        written(repository.root / paths.PER_IMAGE, content),
        written(repository.root / paths.METRICS, json.dumps(metrics)),
    ):
        found = review(*revisions(commits["worse"], None))
        page(found)
        return found


def test_foreign_names_are_shown_and_do_nothing(hostile):
    html, text = page(hostile), markdown(hostile)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert 'a" onmouseover' not in html
    assert "</style><img" not in html
    # Attributes keep a name as it is, for the script; text shows what is hidden in it.
    assert "\u202e" not in re.sub(r'"[^"]*"', "", html.split("<script>")[0])
    assert "<script>" not in text
    assert "\u202e" not in text
    assert "@everyone" not in text
    assert "https://" not in text
    assert "](" not in text.replace("\\](", "")
    for line in text.splitlines():
        if line.startswith("| ") and "breaks" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (6, 8)


def test_markdown_stays_under_the_limit(hostile, reviewed):
    found = reviewed("base", "worse")
    names = [f"{'@|<' * 60}-{number}" for number in range(4000)]
    pairs = {"added": names, "removed": names}
    data = replace(found.changes.data, same=False, pairs=pairs)
    params = [
        type(c)(n, "x" * 900, "y" * 900) for c in found.changes.params for n in names
    ]
    params += [SimpleNamespace(name=n, base="x" * 900, head="y" * 900) for n in names]
    large = replace(
        found, changes=replace(found.changes, data=data, params=params), notes=[]
    )
    text = markdown(large)
    assert len(text.encode()) <= LIMIT
    assert "more" in text
    assert "exported model" in text


def side(dice, groups=None, *, noise=None, sites="") -> SimpleNamespace:
    """Results of images p-0, p-1 and so on, each a group of its own by default.

    Of the sites, the south is held out whole.
    """
    names = [f"p-{number}" for number in range(len(dice))]
    columns = dict.fromkeys(("iou", "hd95_px", "assd_px"), 1.0) | {"dice": dice}
    table = pd.DataFrame({"pair_id": names, "class_name": "A", "site": sites} | columns)
    table["is_headline"] = table["site"] != "south"
    facts = noise and {"dataset": "phantoms", "num_images": len(dice), "dice": noise}
    return SimpleNamespace(
        per_image=table,
        splits=pd.DataFrame({"pair_id": names, "group": groups or names}),
        revision=SimpleNamespace(
            outs={str(paths.INGESTED): "0"}, json=lambda _: facts, corrupt=None
        ),
        facts=None,
        checks=[],
        metrics={"num_images": len(dice)},
    )


def stated(base, head, **facts) -> Verdict:
    """The verdict on two sides of which nothing but this changed."""
    changes = SimpleNamespace(
        **{
            "stale": {"base": {}, "head": {}},
            "same_inputs": False,
            "same_model": False,
            "same_machine": True,
            **facts,
        }
    )
    return verdict(head, comparison.compare(base, head), changes)


def kind_of(base, head, **facts) -> Kind:
    return stated(base, head, **facts).kind


SPREAD = np.linspace(-0.001, 0.001, 12)


def test_a_site_that_a_change_hurts_is_named():
    sites = ["north"] * 12 + ["south"] * 12
    before, after = np.full(24, 0.9), np.full(24, 0.9)
    after += np.concatenate([SPREAD, SPREAD - 0.05])
    base, head = side(before, sites=sites), side(after, sites=sites)
    found = comparison.compare(base, head)
    # The south is held out whole: it has no part in the headline.
    assert found.differences["dice"].num_images == 12
    assert found.differences["dice"].mean == pytest.approx(0)
    assert found.parts["class"]["A"].num_images == 12
    north, south = part_rows("site", base, head, found)
    assert (north.name, north.num_images, north.is_shown) == ("north", "12", False)
    assert (south.mark, south.is_shown) == ("worse", True)
    sentence = stated(base, head).sentence
    assert "site south: mean Dice \N{MINUS SIGN}0.0500" in sentence
    assert "site north" not in sentence


def test_the_headline_in_its_order():
    base, better = side(0.9 + SPREAD), side(0.92 + 2 * SPREAD)
    assert kind_of(base, better) is Kind.BETTER
    assert kind_of(better, base) is Kind.WORSE
    assert kind_of(base, side(0.9 - 2 * SPREAD)) is Kind.NO_DIFFERENCE
    # The same inputs are no change, whatever became of them.
    assert kind_of(base, better, same_inputs=True) is Kind.SAME_INPUTS
    same = side(0.9 + SPREAD)
    assert kind_of(base, same, same_inputs=True, same_model=True) is Kind.SAME_MODEL
    # Other machines: the noise of a rebuild decides, where it is known.
    assert kind_of(base, better, same_machine=False) is Kind.WITHIN_NOISE
    # Seeds that move the mean by more than this change.
    noisy = side(0.92 + 2 * SPREAD, noise={"1": 0.90, "2": 0.92, "3": 0.94})
    assert kind_of(base, noisy) is Kind.WITHIN_NOISE
    assert kind_of(base, noisy, same_inputs=True) is Kind.SAME_INPUTS
    quiet = side(0.92 + 2 * SPREAD, noise={"1": 0.9, "2": 0.9001, "3": 0.9002})
    assert kind_of(base, quiet, same_machine=False) is Kind.BETTER
    # The same inputs are never better; a nightly build must still notice.
    drifted = stated(base, quiet, same_inputs=True)
    assert drifted.kind is Kind.SAME_INPUTS
    assert "more than another seed moves it (0.0006)" in drifted.sentence
    assert drifted.has_drifted
    assert not stated(base, noisy, same_inputs=True).has_drifted
    # Few groups say nothing, stale results less, and a failed gate comes first.
    few = [
        side(dice[:4], ["a", "b", "c", "c"]) for dice in (0.9 + SPREAD, 0.92 + SPREAD)
    ]
    assert kind_of(*few) is Kind.FEW_GROUPS
    assert kind_of(few[0], few[0], same_model=True) is Kind.FEW_GROUPS
    one = [side(dice, ["a"] * 4) for dice in (0.9 + SPREAD[:4], 0.92 + SPREAD[:4])]
    assert np.isnan(comparison.compare(*one).differences["dice"].low)
    assert kind_of(*one) is Kind.FEW_GROUPS
    stale = {"head": {"train": ["x changed after it ran"]}, "base": {}}
    assert kind_of(*one, stale=stale) is Kind.STALE
    better.checks = [Check("dice.mean", 0.92, "min", 0.95, False)]
    assert kind_of(base, better, stale=stale) is Kind.GATE_FAILED
    assert not stated(base, better, stale=stale).judges
    assert stated(base, better).judges


def test_the_tolerance_is_inclusive_and_undefined_is_neither():
    base, head = side([0.8] * 5), side([0.801, 0.802, 0.799, 0.798, np.nan])
    counts = comparison.compare(base, head).counts
    wanted = {"equal": 2, "higher": 1, "lower": 1, "undefined": 1}
    assert {name: counts[name] for name in wanted} == wanted


def test_a_metric_that_the_base_lacks_is_new(repository, reviewed, monkeypatch):
    """As in the review of the pull request that registers it."""

    def size_ratio(masks):
        return masks.sizes[1] / masks.sizes[0]

    one = Metric(
        "size_ratio", "size ratio", size_ratio, digits=3, higher_is_better=True
    )
    monkeypatch.setitem(METRICS, one.name, one)
    repository.plan.git("checkout", "-q", repository.commits["worse"])
    table = pd.read_csv(repository.root / paths.PER_IMAGE).assign(size_ratio=0.5)
    metrics = json.loads((repository.root / paths.METRICS).read_text())
    with (
        written(repository.root / paths.PER_IMAGE, table.to_csv(index=False)),
        written(
            repository.root / paths.METRICS,
            json.dumps(metrics | {"size_ratio": {"mean": 0.5}}),
        ),
    ):
        found = reviewed("base", None)
        row = next(row for row in found.metrics if row.name == "size_ratio.mean")
        assert (row.base, row.head, row.mark) == (ABSENT, "0.500", "new")
        assert f"| `size_ratio.mean` | {ABSENT} | 0.500 |" in markdown(found)


def test_dvc_compares_on_one_screen(repository):
    """Few numbers in the width of a terminal; DVC sorts them by name."""
    plan, commits = repository.plan, repository.commits
    plan.git("checkout", "-q", commits["worse"])
    shown = json.loads(plan.run("dvc", "metrics", "show", "--json").stdout)
    values = [
        value
        for file in shown[""]["data"].values()
        for value in flatten(file["data"]).values()
    ]
    assert 0 < len(values) <= 40
    assert all(isinstance(value, int | float) for value in values)
    done = plan.run("dvc", "metrics", "diff", "a-base", "a-worse")
    # DVC keeps files in a set: one file has one order.
    assert plan.run("dvc", "metrics", "diff", "a-base", "a-worse").stdout == done.stdout
    header, *rows = done.stdout.splitlines()
    assert max(map(len, [header, *rows])) <= 100
    change = next(float(r.split()[-1]) for r in rows if r.split()[1] == "dice.mean")
    means = [repository.per_image(name).dice.mean() for name in ("base", "worse")]
    assert change == pytest.approx(means[1] - means[0], abs=1e-4)


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page; at the end nothing was asked of the network and nothing failed."""
    complaints: list[str] = []
    contexts = []

    def open_(html: str | Path, **words):
        path = html if isinstance(html, Path) else tmp_path / "review.html"
        if isinstance(html, str):
            path.write_text(html, encoding="utf-8")
        context = browser.new_context(**words)
        contexts.append(context)
        tab = context.new_page()
        tab.on(
            "console",
            lambda message: message.type == "error" and complaints.append(message.text),
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:"))
                or complaints.append(request.url)
            ),
        )
        tab.goto(path.as_uri())
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_sorts_filters_and_opens_panels(repository, reviewed, opened, scheme):
    found = reviewed("base", "worse")
    tab = opened(page(found), color_scheme=scheme)
    rows = tab.locator("#images tbody:visible")
    total = len(repository.per_image("base"))
    assert rows.count() == total

    def column(number: int) -> list[str]:
        return tab.locator(
            f"#images tbody:visible .row td:nth-child({number})"
        ).all_inner_texts()

    header = tab.locator("#images th", has_text="Difference")
    for sign, way in ((1, "click"), (-1, "press")):
        getattr(header.locator("button"), way)(*["Enter"] * (way == "press"))
        differences = [sign * float(t.replace(MINUS, "-")) for t in column(6)]
        assert differences == sorted(differences)

    tab.select_option("#became", "lower")
    assert set(column(1)) == set(repository.worsened)
    tab.fill("#search", "no such pair")
    assert tab.locator("#shown").inner_text() == f"0 of {total} images"
    tab.fill("#search", "")
    tab.select_option("#became", "")
    tab.select_option("#class", "COVID")
    assert set(column(2)) == {"COVID"}
    tab.select_option("#class", "")
    assert rows.count() == total

    # A panel, by a click on the row and by the keyboard on its name.
    button = tab.get_by_role("button", name=repository.improved, exact=True)
    body = tab.locator("#images tbody", has=button)
    body.locator(".row td").nth(3).click()
    pictures = body.locator(".panel img")
    assert pictures.count() == 2
    assert pictures.first.evaluate("image => image.naturalWidth") == 384
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "false"
    assert not pictures.first.is_visible()
    assert tab.locator("#images tbody .open").count() == len(found.panels)

    # A gallery's link leads to the row, even to one that is filtered away.
    tab.select_option("#became", "equal")
    tab.locator(".gallery a", has_text=found.worst[0]).first.click()
    first = tab.get_by_role("button", name=found.worst[0], exact=True)
    assert first.get_attribute("aria-expanded") == "true"

    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(fits)
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate(fits)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    is_light = sum(int(n) for n in re.findall(r"\d+", background)[:3]) > 384
    assert is_light == (scheme == "light")


@pytest.mark.browser
def test_dvc_draws_without_a_network_and_the_worst_first(repository, tmp_path, opened):
    plan = repository.plan
    plan.git("checkout", "-q", repository.commits["worse"])
    plan.run("dvc", "checkout", "--force", "data/evaluation/overlays")
    plan.run("dvc", "plots", "show", "-o", str(tmp_path))
    tab = opened(tmp_path / "index.html")
    tab.locator("canvas, svg.marks").nth(5).wait_for()  # every plot of dvc.yaml
    names = tab.locator("div:has(> div > img) > p").all_inner_texts()
    dice = repository.per_image("worse").dice
    order = [dice[name.split("/")[-1].removesuffix(".png")] for name in names]
    assert order == sorted(dice)


@pytest.mark.browser
def test_page_runs_no_foreign_code(hostile, opened):
    tab = opened(page(hostile))
    assert tab.locator("#images tbody").count() == len(hostile.comparison.images)
    assert tab.locator("img[src='x']").count() == 0
    assert tab.get_by_text("<script>alert(1)</script>").count() > 0
