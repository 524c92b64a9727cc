import base64
import re

import numpy as np
import pytest

from stages.core.imaging import decode_mask
from stages.core.params import parse_params
from stages.datasets.sources import phantom
from stages.inference.serve.engine import svg_path
from tests.conftest import png
from tests.inference.serving import serving


@pytest.fixture(scope="module")
def film(shipped_values):
    """A radiograph as the pipeline draws it, in PNG."""
    image = next(iter(phantom.pairs(parse_params(shipped_values).ingest))).image
    assert image is not None
    return image


@pytest.fixture(scope="module")
def page_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, max_bytes=2**20, max_pixels=2**20) as found:
        yield found


@pytest.fixture
def opened(browser, page_server):
    """Opens the page; at the end nothing left the server and nothing failed."""
    complaints: list[str] = []
    contexts = []

    def open_(**words):
        context = browser.new_context(**words)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((page_server.url, f"blob:{page_server.url}"))
                or complaints.append(request.url)
            ),
        )
        tab.goto(page_server.url)
        return tab

    yield open_, complaints
    for context in contexts:
        context.close()
    assert not complaints


def drop(tab, content: bytes, name: str) -> None:
    """Drops a file on the page, as a hand does."""
    transfer = tab.evaluate_handle(
        """([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name));
          return transfer;
        }""",
        [base64.b64encode(content).decode(), name],
    )
    for event in ("dragover", "drop"):
        tab.dispatch_event("#drop", event, {"dataTransfer": transfer})


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_image_is_dropped_and_its_mask_taken_home(
    opened, page_server, film, tmp_path, scheme
):
    tab = opened[0](color_scheme=scheme, accept_downloads=True)
    assert tab.get_by_text("Not a medical device").is_visible()
    # What is served is asked for after the page has loaded.
    tab.get_by_text("trained on synthetic images alone").wait_for()
    drop(tab, film, "Jane Doe.old.png")
    tab.wait_for_selector("#result:not([hidden])")
    _, headers, mask = page_server.ask("/predict", film)
    # The outline lies where the mask is, over the image.
    line = tab.locator("#picture .line")
    assert line.is_visible()
    assert line.get_attribute("d") == svg_path(decode_mask(mask))
    assert tab.locator("#picture").get_attribute("viewBox") == "0 0 299 299"
    assert tab.locator("#picture image").is_visible()
    share = float(headers["x-lung-area-fraction"])
    facts = tab.locator("#facts").inner_text()
    assert f"{100 * share:.1f} % of the image" in facts
    warnings = tab.locator("#warnings li").all_inner_texts()
    assert warnings == list(filter(None, headers["x-warnings"].split("; ")))
    with tab.expect_download() as download:
        tab.get_by_text("Download the mask").click()
    assert download.value.suggested_filename == "Jane Doe.old-mask.png"
    download.value.save_as(tmp_path / "mask.png")
    assert (tmp_path / "mask.png").read_bytes() == mask
    # What is shown is chosen by the keyboard.
    tab.focus("input[value=outline]")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#picture .area").is_visible()
    tab.keyboard.press("ArrowRight")
    assert not line.is_visible()
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(n) for n in re.findall(r"\d+", background)[:3])
    assert (brightness > 384) == (scheme == "light")


@pytest.mark.browser
def test_the_page_says_where_nothing_was_found(opened):
    tab = opened[0]()
    # A name is shown as text, too: as an element it would ask for the picture.
    drop(tab, png(np.full((9, 7), 255, np.uint8)), "<img src=planted>.png")
    tab.get_by_text("The model found nothing in this image.").wait_for()
    assert "<img src=planted>.png" in tab.locator("#name").inner_text()
    assert not tab.locator("img[src=planted]").count()
    assert tab.locator("#picture .line").get_attribute("d") == ""
    assert "no lung found" in tab.locator("#warnings").inner_text()


@pytest.mark.browser
def test_the_page_by_keyboard_on_a_narrow_screen(opened, film, tmp_path):
    tab = opened[0](viewport={"width": 390, "height": 800})
    field = tab.locator("#file")
    with tab.expect_file_chooser() as chooser:
        field.press("Enter")
    ring = "getComputedStyle(document.querySelector('#drop')).outlineStyle"
    assert tab.evaluate(ring) == "solid"  # who has no mouse sees where they are
    (tmp_path / "film.png").write_bytes(film)
    chooser.value.set_files(tmp_path / "film.png")
    tab.wait_for_selector("#result:not([hidden])")
    tab.locator("summary").press("Enter")
    # A model's own words are shown as text.
    tab.locator("#model", has_text="drawn <b>lungs</b>").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_the_page_tells_what_is_wrong(opened, film):
    open_, complaints = opened
    tab = open_()
    drop(tab, bytes(2**20 + 1), "large.png")
    tab.get_by_text("large.png: the image has 1048577 bytes").wait_for()
    drop(tab, film, "film.png")
    tab.wait_for_selector("#result:not([hidden])")
    assert not tab.locator("#problem").is_visible()
    assert not complaints
    drop(tab, b"<script>alert(1)</script>", "<i>no image</i>.png")
    tab.get_by_text("<i>no image</i>.png: the body is html or xml").wait_for()
    assert not tab.locator("#result").is_visible()
    # The browser itself notes the refusal.
    assert complaints.pop().endswith("status of 415 (Unsupported Media Type)")
