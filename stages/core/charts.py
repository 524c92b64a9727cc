"""Charts as SVG text, drawn by matplotlib in colours that follow light and dark.

Draw on the axes of `figure()` with `COLOURS`; `svg()` gives the picture for a page
that holds `STYLE`, and `standalone()` a file of its own. The same numbers give the
same bytes.
"""

import io
import re
from collections.abc import Mapping

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

# CSS variable: colour on a light page, on a dark one.
_SCHEMES = {
    "soft": ("#566173", "#9ba7b7"),  # text and axes
    "line": ("#dce1e8", "#2d3744"),  # grid
    "base": ("#6b7686", "#97a3b4"),
    "head": ("#c2560c", "#f2994f"),
    "better": ("#14744a", "#63cb94"),
    "worse": ("#b52a20", "#f4877b"),
    "even": ("#56606e", "#a5b0bf"),
    "none": ("#8a5b00", "#e6b75c"),
    # For more series: told apart by colour-blind readers, too (Okabe and Ito).
    "series-0": ("#0072b2", "#56b4e9"),
    "series-1": ("#d55e00", "#ff8c42"),
    "series-2": ("#009e73", "#2fcf9f"),
    "series-3": ("#b0578d", "#e08cc0"),
    "series-4": ("#8a6d00", "#e6c84a"),
    "series-5": ("#5a4fcf", "#a49bff"),
}
COLOURS = {name: light for name, (light, _) in _SCHEMES.items()}
SERIES = [colour for name, colour in COLOURS.items() if name.startswith("series")]


def _variables(scheme: int) -> str:
    return " ".join(f"--{name}: {of[scheme]};" for name, of in _SCHEMES.items())


STYLE = (
    f":root {{ color-scheme: light dark; {_variables(0)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}\n"
)
_ALONE = (
    "svg { background: #fff; }\n"
    "@media (prefers-color-scheme: dark) { svg { background: #181f28; } }\n"
)

matplotlib.rcParams.update(
    {
        "svg.hashsalt": "lungfield",  # ids are random without it
        "svg.fonttype": "none",  # text stays text
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout anywhere
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": COLOURS["soft"],
        "axes.labelcolor": COLOURS["soft"],
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.8,
        "xtick.color": COLOURS["soft"],
        "ytick.color": COLOURS["soft"],
        "text.color": COLOURS["soft"],
        "lines.linewidth": 1.6,
        "legend.frameon": False,
    }
)


def figure(*, width: float = 4.0, height: float = 2.8) -> tuple[Figure, Axes]:
    """A figure in inches, each about 100 pixels on a page; it has no background."""
    made = Figure(figsize=(width, height), layout="constrained")
    made.patch.set_visible(False)
    axes = made.subplots()
    axes.patch.set_visible(False)
    return made, axes


def svg(drawn: Figure, title: str, titles: Mapping[str, str] | None = None) -> Markup:
    """The figure as SVG inside a page.

    Args:
        drawn: A figure of `figure()`.
        title: What it shows, for readers who do not see it.
        titles: What a mark says when pointed at, by the URL that it links to.
    """
    file = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    drawn.savefig(file, format="svg", metadata=metadata)
    text = file.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    inner = text[text.index(">", box.end()) + 1 :]
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    # These ids name nothing that is used, and several figures of a page share them.
    inner = re.sub(r' id="[\w.]+_\d+"', "", inner)
    inner = inner.replace("'DejaVu Sans'", "system-ui, sans-serif")
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r"\n\s*", "\n", inner)
    for name, colour in COLOURS.items():
        inner = inner.replace(colour, f"var(--{name})")
    inner = re.sub(
        r'<a href="([^"]*)"[^>]*>',
        lambda found: (
            f'<a href="{found[1]}" tabindex="-1">'
            f"<title>{escape((titles or {}).get(found[1], ''))}</title>"
        ),
        inner,
    )
    label = escape(title)
    # Both the label and the drawing are escaped by now.
    return Markup(
        f'<svg class="chart" role="img" aria-label="{label}" {box[0]}>{inner.strip()}'
    )


def standalone(drawn: Figure, title: str) -> str:
    """The figure as a file of its own, for a light and a dark page."""
    text = str(svg(drawn, title)).replace(
        "<svg ",
        '<svg xmlns="http://www.w3.org/2000/svg" ',
        1,
    )
    opening, rest = text.split(">", 1)
    return f"{opening}><style>\n{STYLE}{_ALONE}</style>{rest}\n"
