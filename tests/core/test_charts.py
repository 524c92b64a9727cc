"""Charts hold the numbers that they are given, and give the same bytes each time."""

import xml.etree.ElementTree as ET

from stages.core.charts import COLOURS, figure, standalone, svg


def drawn(label: str = "<b>& one</b>"):
    made, axes = figure()
    axes.plot([1, 2, 3], [1, 3, 2], color=COLOURS["head"], label=label)
    axes.scatter([1, 2], [1, 3], color=COLOURS["worse"], urls=["#a", "#b"])
    axes.legend()
    return made


def test_the_same_numbers_give_the_same_bytes_and_ask_for_nothing():
    text = standalone(drawn(), "A <title>")
    assert text == standalone(drawn(), "A <title>")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    root = ET.fromstring(text)
    assert root.get("aria-label") == "A <title>"
    assert "<b>& one</b>" in [element.text for element in root.iter()]


def test_colours_follow_the_page_and_marks_lead_somewhere():
    text = svg(drawn(), "A title", {"#a": "first <one>"})
    assert "var(--head)" in text
    assert "var(--worse)" in text
    assert not [colour for colour in COLOURS.values() if colour in text]
    links = {link.get("href"): link for link in ET.fromstring(text).iter("a")}
    assert links["#a"].find("title").text == "first <one>"
    assert set(links) == {"#a", "#b"}
