import json

import pandas as pd
import pytest

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.gate import gate
from stages.scoring.scores import summarise


@pytest.fixture
def metrics():
    files.write_json(
        paths.METRICS,
        {
            "dice": {"mean": 0.9612, "p05": None},
            "hd95_px": {"mean": 5.0},
            "by_class": {"Viral Pneumonia": {"dice": {"mean": 0.9}}},
            "by_site": {"St. Mary": {"dice": {"p05": 0.7}, "num_undefined": 2}},
            "num_undefined": 0,
        },
    )


@pytest.fixture
def judge(section):
    """Judges by these bounds alone."""
    return lambda lowest, highest=(): gate(
        section("gate", min=lowest, max=dict(highest))
    )


def verdict():
    return json.loads(paths.VERDICT.read_text())


def test_met_bounds_pass_and_equal_is_met(metrics, judge):
    judge(
        {"dice.mean": 0.9612, "by_class.Viral Pneumonia.dice.mean": 0.9},
        {"num_undefined": 0, "hd95_px.mean": 5.5},
    )
    assert verdict()["passed"] is True
    assert len(verdict()["checks"]) == 4


@pytest.mark.parametrize(
    ("minimum", "maximum", "row"),
    [
        ({"dice.mean": 0.97}, {}, ["dice.mean", "0.9612", ">= 0.97", "FAILED"]),
        ({}, {"hd95_px.mean": 4.0}, ["hd95_px.mean", "5.00", "<= 4", "FAILED"]),
        ({"dice.p05": 0.0}, {}, ["dice.p05", "undefined", ">= 0", "FAILED"]),
        ({}, {"dice.typo": 1.0}, ["dice.typo", "undefined", "<= 1", "FAILED"]),
        ({"dice": 0.5}, {}, ["dice", "undefined", ">= 0.5", "FAILED"]),
        (
            {"by_site": {"St. Mary": {"dice": {"p05": 0.8}}}},
            {},
            ["by_site.St. Mary.dice.p05", "0.7000", ">= 0.8", "FAILED"],
        ),
    ],
)
def test_what_falls_short_fails_with_the_table(metrics, judge, minimum, maximum, row):
    with pytest.raises(PipelineError) as caught:
        judge(minimum | {"hd95_px.mean": 1.0}, maximum)
    message = str(caught.value)
    assert message.startswith("gate: 1 of 2 bounds in params.yaml are not met")
    assert " ".join(row) in " ".join(message.split())
    # The reviewer sees what failed: the verdict is there all the same.
    assert verdict()["passed"] is False


def test_an_interval_of_one_group_is_undefined_and_fails(section, judge):
    images = pd.DataFrame({"pair_id": ["a", "b"], "class_name": "A", "group": "a"})
    images[["dice", "iou", "hd95_px", "assd_px"]] = 0.9
    found = summarise(images, section("evaluate"))
    files.write_json(paths.METRICS, found)
    written = files.read_json(paths.METRICS)["dice"]
    assert (written["mean"], written["ci_low"], written["ci_high"]) == (0.9, None, None)
    expected = r"1 of 2 .* are not met \(dice\.ci_low needs 2 groups of images\), so"
    with pytest.raises(PipelineError, match=expected):
        judge({"dice.mean": 0.9, "dice.ci_low": 0.0})


def test_missing_metrics_say_what_makes_them(judge):
    with pytest.raises(
        PipelineError, match=r"metrics\.json is missing; run `dvc repro`"
    ):
        judge({})
