"""Do the review's charts hold both sides' numbers?"""

import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pandas as pd

from stages.review.comparison import EQUAL, HIGHER, LOWER
from stages.review.curves import charts


def side(loss: list[float], norms: list[float]) -> SimpleNamespace:
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
    return SimpleNamespace(history=history, gradients=pd.DataFrame(rows), params={})


IMAGES = pd.DataFrame(
    {
        "pair_id": ["a", "b", "c", "d", "e"],
        "became": [LOWER, HIGHER, EQUAL, EQUAL, "only in head"],
        "dice_base": [0.9, 0.8, 0.7, 0.6, None],
        "dice_head": [0.5, 0.9, 0.7, 0.6, 0.4],
        "dice_difference": [-0.4, 0.1, 0.0, 0.0, None],
    }
)
LINKS = {name: f"#image-{name}" for name in "abcde"}


def drawn(base, head) -> dict[str, SimpleNamespace]:
    comparison = SimpleNamespace(images=IMAGES)
    return {chart.title: chart for chart in charts(base, head, comparison, LINKS)}


def lines(chart) -> dict[str, list[float]]:
    """Heights of the points of each side's line, upwards."""
    found = {}
    for path in ET.fromstring(chart.svg).iter("path"):
        for role in ("base", "head"):
            style = path.get("style") or ""
            if f"stroke: var(--{role})" in style and "fill: none" in style:
                words = path.get("d").split()
                found[role] = [-float(y) for y in words[2::3]]
    return found


def test_every_curve_of_both_sides_is_there():
    base, head = side([0.5, 0.4], [1, 2, 3]), side([0.6, 0.3, 0.2], [2, 4, 3])
    found = drawn(base, head)
    # A point per image that both sides scored, which leads to it.
    scatter = ET.fromstring(found["Dice of every image"].svg)
    links = {link.get("href"): link for link in scatter.iter("a")}
    assert set(links) == {LINKS[name] for name in "abcd"}
    assert links["#image-a"].find("title").text == "a: 0.9000 to 0.5000"
    # Falling losses, rising Dice, one point per epoch.
    for title, falls in (("Training loss", True), ("Training Dice", False)):
        for role, num in (("base", 2), ("head", 3)):
            heights = lines(found[title])[role]
            assert heights == sorted(heights, reverse=falls)
            assert len(heights) == num
    # The median over steps, of the parts that the gradient reaches.
    for level in (0, 1):
        gradients = found[f"Gradient from head {level}"]
        assert {len(line) for line in lines(gradients).values()} == {2}
        assert ">encoder_0<" in gradients.svg
        assert ">head_0<" not in gradients.svg


def test_a_side_without_curves_leaves_the_others():
    base, head = side([], [1, 2, 3]), side([0.5], [1, 2, 3])
    base.gradients = head.gradients = None
    found = drawn(base, head)
    assert list(found) == ["Dice of every image", "Training loss", "Training Dice"]
    assert set(lines(found["Training loss"])) == {"head"}
