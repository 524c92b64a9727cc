"""Do the drawings, and the review's curves, hold the numbers that they are given?"""

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pandas as pd
import pytest

from stages.core.charts import Axis, Series, fitted, histogram, line_chart
from stages.review.comparison import BETTER, EQUAL, WORSE
from stages.review.curves import charts, training_rows


def labels(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def marks(svg: str, tag: str, kind: str) -> list[ET.Element]:
    """Elements of one tag and class, such as the bars that are worse."""
    found = ET.fromstring(svg).iter(tag)
    return [element for element in found if element.get("class") == kind]


def test_what_is_counted_has_whole_ticks():
    one = fitted("epoch", [1.0], is_whole=True)
    assert one.ticks() == [(1.0, "1")]
    many = fitted("epoch", [1.0, 60.0], is_whole=True)
    assert [label for _, label in many.ticks()] == ["0", "20", "40", "60"]
    assert ".5" in str(fitted("Dice", [1.0, 2.0]).ticks())
    bars = [(-0.1, 0.1, 1, "equal"), (0.1, 0.3, 2, "better")]
    svg = histogram("Differences", bars, Axis("Dice", -0.1, 0.3), "images")
    assert [text for text in labels(svg) if re.fullmatch(r"\d\.\d0", text)] == []
    assert {"0", "1", "2"} <= set(labels(svg))


@pytest.mark.parametrize(
    ("names", "is_turned"),
    [
        (["a", "b", "c"], False),
        (["encoder_0", "encoder_1", "middle", "decoder_1", "decoder_0"], True),
        (["middle"] * 9, True),
    ],
)
def test_names_that_would_touch_are_turned(names, is_turned):
    axis = Axis("part", -0.4, len(names) - 0.6, names=names)
    points = [(float(place), 1.0) for place in range(len(names))]
    svg = line_chart("parts", [Series("", points, "head")], axis, fitted("y", [1.0]))
    texts = [e for e in ET.fromstring(svg).iter("text") if e.text in names]
    assert len(texts) == len(names)
    assert {"-32" in (e.get("transform") or "") for e in texts} == {is_turned}


def side(loss: list[float], norms: list[float], **train: object) -> SimpleNamespace:
    epochs = [float(number) for number in range(1, len(loss) + 1)]
    history = pd.DataFrame(
        {"epoch": epochs, "loss": loss, "dice": [1 - v for v in loss]}
    )
    rows = [
        {"step": step, "head": head, "part": part, "gradient_norm": norm * (head + 1)}
        for head in (0, 1)
        for part, norm in zip(("encoder_0", "middle", "head_0"), norms, strict=True)
        for step, norm in ((0, norm), (1, 100 * norm), (2, 2 * norm))
    ]
    gradients = pd.DataFrame(rows)
    params = {"train": {"loss": "bce", "supervision_weights": [1.0], **train}}
    return SimpleNamespace(history=history, gradients=gradients, params=params)


def compared() -> SimpleNamespace:
    table = {
        "pair_id": ["a", "b", "c", "d", "e"],
        "became": [WORSE, BETTER, EQUAL, EQUAL, "only in head"],
        "dice_base": [0.9, 0.8, 0.7, 0.6, None],
        "dice_head": [0.5, 0.9, 0.7, 0.6, 0.4],
        "dice_difference": [-0.4, 0.1, 0.0, 0.0, None],
    }
    return SimpleNamespace(images=pd.DataFrame(table))


LINKS = {name: f"#image-{name}" for name in "abcde"}


def drawn(base, head) -> dict[str, SimpleNamespace]:
    return {chart.title: chart for chart in charts(base, head, compared(), LINKS)}


def test_every_curve_of_both_sides_is_there():
    base, head = side([0.5, 0.4], [1, 2, 3]), side([0.6, 0.3, 0.2], [2, 4, 3])
    found = drawn(base, head)
    assert list(found) == [
        *("Dice of every image", "Differences of Dice", "Training loss"),
        *("Training Dice", "Gradient from head 0", "Gradient from head 1"),
    ]
    # A point an image that both sides scored, which leads to it.
    scatter = ET.fromstring(found["Dice of every image"].svg)
    links = {link.get("href"): link for link in scatter.iter("a")}
    assert set(links) == {LINKS[name] for name in "abcd"}
    title = links["#image-a"].find("path/title")
    assert title is not None
    assert title.text == "a: 0.9000 to 0.5000"
    # A bar's height is how many images lie in it.
    for kind, count in (("worse", 1), ("better", 1), ("equal", 2)):
        [bar] = marks(found["Differences of Dice"].svg, "rect", f"bar {kind}")
        assert bar[0].text.endswith(f": {count}")
    # Both sides are lines on one axis: a point an epoch, the lower the better.
    for role, count in (("base", 2), ("head", 3)):
        [line] = marks(found["Training loss"].svg, "polyline", f"line {role}")
        heights = [float(place.split(",")[1]) for place in line.get("points").split()]
        assert len(heights) == count
        assert heights == sorted(heights)
        [line] = marks(found["Training Dice"].svg, "polyline", f"line {role}")
        heights = [float(place.split(",")[1]) for place in line.get("points").split()]
        assert heights == sorted(heights, reverse=True)
    # The median over steps, of the parts that the gradient reaches.
    [line] = marks(found["Gradient from head 0"].svg, "polyline", "line base")
    assert len(line.get("points").split()) == 2
    assert {"encoder_0", "middle"} <= set(labels(found["Gradient from head 0"].svg))
    y = fitted("", [2.0, 4.0, 4.0, 8.0], is_log=True)
    height = float(line.get("points").split()[0].split(",")[1])
    assert height == pytest.approx(220 - y.share(2.0) * 208, abs=0.1)
    assert "the same" not in str([chart.remark for chart in found.values()])
    assert training_rows(base, head)[1] == ["training loss", "0.4000", "0.2000"]


def test_a_line_under_another_and_another_scale_are_told():
    base, head = side([0.5, 0.4], [1, 2, 3]), side([0.5, 0.4], [1, 2, 3])
    same = [title for title, c in drawn(base, head).items() if "same" in c.remark]
    assert same == [
        *("Training loss", "Training Dice"),
        *("Gradient from head 0", "Gradient from head 1"),
    ]
    other = side([0.7, 0.6], [1, 2, 3], supervision_weights=[1.0, 0.5])
    assert "not on one scale" in drawn(base, other)["Training loss"].remark


def test_a_side_without_curves_leaves_the_others():
    base, head = side([], [1, 2, 3]), side([0.5], [1, 2, 3])
    base.gradients = None
    found = drawn(base, head)
    assert not marks(found["Training loss"].svg, "polyline", "line base")
    assert len(marks(found["Training loss"].svg, "polyline", "line head")) == 1
    head.history = head.gradients = None
    assert list(drawn(base, head)) == ["Dice of every image", "Differences of Dice"]
