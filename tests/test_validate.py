"""Is every broken pair kept out with its reason, and every usable one kept in?"""

import contextlib
import hashlib
import io
import json
import re
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.core import files, imaging, paths
from stages.core.errors import PipelineError
from stages.core.params import parse_params
from stages.datasets.pairs import Pair, write_shards
from stages.validate import QUALITY_SCHEMA, facts, validate
from tests.conftest import TINY, ingested_pair, lungs, png, with_overrides

HOSTILE = """<script>alert("1")</script>&'; DROP"""


def encode(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    ok, buffer = cv2.imencode(suffix, pixels, list(options))
    assert ok
    return buffer.tobytes()


def pair(number: int = 1, class_name: str = "COVID", **changes: Any) -> Pair:
    """A usable pair, but for the changes."""
    image, mask = lungs(number)
    colour = cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)
    name = f"{class_name}-{number}"
    changes = {"class_name": class_name, **changes}
    return ingested_pair(name, image, colour, **changes)


def with_palette(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert("P").save(buffer, "png")
    return buffer.getvalue()


IMAGE, MASK = lungs(1)
GREY_EDGE = cv2.GaussianBlur(MASK, (5, 5), 0)
SPOTS = np.array(MASK)
SPOTS[0:6:2, 0:6:2] = 255
DOT = np.where(np.arange(MASK.size).reshape(MASK.shape) == 99, 255, 0).astype(np.uint8)

# What is wrong with it: id, changes, and what its reason must say.
REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "image of zero bytes": ({"image": b""}, "image cannot be read: the file is empty"),
    "truncated image": (
        {"image": png(IMAGE)[:400]},
        "image cannot be read: not a whole",
    ),
    "text": ({"image": b"hello, world"}, "its content is of no known format"),
    "image without mask": ({"mask": None, "mask_path": ""}, "has no mask"),
    "mask without image": ({"image": None, "image_path": ""}, "has no image"),
    "not taken": (
        {"image": None, "problem": "the image holds 9 bytes, more than 8"},
        "the image holds 9 bytes, more than 8",
    ),
    "small image": (
        {"image": png(IMAGE[:20])},
        "image is 20x40 and mask 32x32 (expected: image and mask are 40x40 with 32x32)",
    ),
    "grey mask": ({"mask": png(GREY_EDGE)}, "mask values are 0,"),
    "mask of three classes": (
        {"mask": png(np.vstack([MASK[:16] // 255, MASK[16:] // 255 * 2]))},
        "mask values are 0,1,2; masks of several classes are out of scope",
    ),
    "mask of labels in 16 bits": (
        {"mask": png(MASK.astype(np.uint16) // 255)},
        "mask values are 0,1 (expected: ",
    ),
    "lesion that fills the mask": (
        {"mask": png(MASK * 0 + 255), "may_be_empty": True},
        "foreground is 1 of the mask",
    ),
    "coloured mask": (
        {"mask": png(cv2.merge([MASK, MASK * 0, MASK * 0]))},
        "mask values are 0,29 (expected: mask values are 0 and 255 only)",
    ),
    "black mask": (
        {"mask": png(MASK * 0)},
        "foreground is 0 of the mask (expected: foreground is 0.02 to 0.75",
    ),
    "flat image": (
        {"image": png(IMAGE * 0 + 90)},
        "grey values deviate by 0 (expected: grey values deviate by 4 or more)",
    ),
    HOSTILE: ({"mask": png(MASK * 0)}, "foreground is 0 of the mask"),
}
NOTED: dict[str, tuple[dict[str, Any], str]] = {
    "16 bits": (
        {"image": png(IMAGE.astype(np.uint16) * 257)},
        "image has 16 bits per sample",
    ),
    "16-bit mask": ({"mask": png(MASK.astype(np.uint16) * 257)}, "mask has 16 bits"),
    "alpha": (
        {"image": png(cv2.cvtColor(IMAGE, cv2.COLOR_GRAY2BGRA))},
        "image has an alpha channel",
    ),
    "palette": ({"image": with_palette(IMAGE)}, "image has a colour palette"),
    "jpeg named png": (
        {"image": encode(".jpg", IMAGE, cv2.IMWRITE_JPEG_QUALITY, 95)},
        "image is jpeg under the name of png",
    ),
    "spots": ({"mask": png(SPOTS)}, "mask has 11 separate regions"),
}
PLAIN: dict[str, dict[str, Any]] = {
    # The brightest, which the page shows.
    "Überblick Ж 肺 (1)": {
        "image_path": "Überblick Ж/肺 (1).png",
        "image": png(cv2.add(IMAGE, 40)),
    },
    "three equal channels": {"image": png(cv2.cvtColor(IMAGE, cv2.COLOR_GRAY2BGR))},
    "tiff": {"image": encode(".tiff", IMAGE), "image_path": "a.TIF"},
    "lesion that is not there": {"mask": png(MASK * 0), "may_be_empty": True},
    "lesion of one pixel": {"mask": png(DOT), "may_be_empty": True},
}
TWIN = "used twice"


@pytest.fixture(scope="module")
def judged(tmp_path_factory, shipped_values):
    """All kinds of pairs in one data set, judged once; a table and what was written."""
    values = with_overrides(
        with_overrides(shipped_values, TINY),
        {"validate.max_rejected_fraction": 1.0, "validate.thumbnails": 8},
    )
    kinds = {name: changes for name, (changes, _) in {**REJECTED, **NOTED}.items()}
    kinds |= PLAIN
    pairs = [pair(1), pair(2), pair(3, pair_id=TWIN), pair(4, pair_id=TWIN)]
    pairs += [
        pair(index + 100, "Klasse Ü", pair_id=name, **changes)
        for index, (name, changes) in enumerate(kinds.items())
    ]
    with contextlib.chdir(tmp_path_factory.mktemp("judged")):
        write_shards(pairs, paths.INGESTED, shard_pairs=8)
        validate(parse_params(values).validate_)
        table = pq.read_table(paths.QUALITY_PAIRS)
        assert table.schema.equals(QUALITY_SCHEMA)
        return {
            "table": table.to_pandas(),
            "report": json.loads(paths.QUALITY_REPORT.read_text("utf-8")),
            "page": (paths.QUALITY_DOCS / "index.html").read_text("utf-8"),
        }


def row_of(judged: dict[str, Any], name: str) -> pd.Series:
    table = judged["table"]
    return table[table["pair_id"] == name].iloc[0]


@pytest.mark.parametrize("name", REJECTED)
def test_is_rejected_with_its_reason(judged, name):
    row = row_of(judged, name)
    assert not row["accepted"]
    assert REJECTED[name][1] in row["reason"]
    assert row["reason"].count("(expected:") == 1  # one trouble, one reason


@pytest.mark.parametrize("name", NOTED)
def test_is_accepted_with_a_note(judged, name):
    row = row_of(judged, name)
    assert row["accepted"]
    assert row["reason"] == ""
    assert NOTED[name][1] in row["note"]


@pytest.mark.parametrize("name", PLAIN)
def test_is_accepted_plainly(judged, name):
    row = row_of(judged, name)
    assert row["accepted"]
    # The pictures are one picture, which is worth a note, and the only one.
    assert row["note"].count("(expected:") <= 1
    assert "exact copy" in row["note"] or not row["note"]


def test_a_repeated_id_rejects_both(judged):
    table = judged["table"]
    rows = table[table["pair_id"] == TWIN]
    assert rows["accepted"].tolist() == [False, False]
    assert rows["reason"].str.contains("'used twice' is used more than once").all()


def test_facts_are_right(judged):
    row = row_of(judged, "COVID-1")
    image, mask = lungs(1)
    assert row["image_shape"] == "40x40"
    assert row["mask_shape"] == "32x32"
    assert (row["image_format"], row["mask_format"]) == ("png", "png")
    assert (row["image_channels"], row["mask_channels"]) == (1, 3)
    assert (row["image_bit_depth"], row["image_has_alpha"]) == (8, False)
    assert row["mask_values"] == "0,255"
    assert row["foreground_fraction"] == pytest.approx((mask == 255).mean(), abs=1e-6)
    assert row["num_components"] == 2
    assert row["image_mean"] == pytest.approx(image.mean(), abs=1e-5)
    assert row["image_contrast"] == pytest.approx(image.std(), abs=1e-5)
    assert re.fullmatch("[0-9a-f]{64}", row["image_phash"])
    sha256 = hashlib.sha256(b"40x40:" + image.tobytes()).hexdigest()
    assert row["image_sha256"] == sha256


def test_pixels_make_the_hash_not_their_encoding(judged):
    rows = [
        row_of(judged, name) for name in ("three equal channels", "palette", "tiff")
    ]
    assert {row["image_sha256"] for row in rows} == {
        row_of(judged, "COVID-1")["image_sha256"]
    }
    assert row_of(judged, "COVID-2")["image_sha256"] != rows[0]["image_sha256"]


def test_report_counts_and_names(judged):
    report = judged["report"]
    rejected = len(REJECTED) + 2
    total = rejected + len(NOTED) + len(PLAIN) + 2
    assert (report["num_pairs"], report["num_rejected"]) == (total, rejected)
    assert report["num_accepted"] == total - rejected
    assert report["rejected_fraction"] == round(rejected / total, 6)
    assert report["success"] is True
    assert report["by_class"]["COVID"] == {
        "num_accepted": 2,
        "num_pairs": 4,
        "num_rejected": 2,
    }
    table = judged["table"]
    noted = table["accepted"] & (table["note"] != "")
    assert report["num_noted"] == noted.sum()
    assert f"<b>{noted.sum()}</b><span>accepted with a note" in judged["page"]
    by_name = {entry["name"]: entry for entry in report["expectations"]}
    orphans = by_name["not_orphan"]
    assert orphans["examples"] == ["image without mask", "mask without image"]
    assert (orphans["severity"], orphans["success"]) == ("critical", False)
    assert by_name["id_unique"]["num_unexpected"] == 2
    assert by_name["min_pairs"]["scope"] == "all"
    assert 0 < report["accepted_statistics"]["foreground_fraction"]["median"] < 0.75


def test_page_stands_alone_and_escapes_what_comes_from_the_data(judged):
    page = judged["page"]
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert "url(" not in page.replace("url(#", "")


def test_page_shows_offenders_and_reasons(judged):
    page = judged["page"]
    figures = re.findall(r'<figure class="card">.*?</figure>', page, re.S)
    offenders = [figure for figure in figures if 'class="why"' in figure]
    assert len(offenders) == 8  # validate.thumbnails
    # Reasons take turns: eight offenders show the eight reasons there are.
    reasons = [re.search(r'class="why">([^<]{9})', figure)[1] for figure in offenders]
    assert len(set(reasons)) == len(reasons)
    assert "no readable image" in page
    assert page.count("<svg ") == 4
    assert "prefers-color-scheme: dark" in page


@pytest.fixture
def run(section):
    """Validates pairs with changed params; the table written."""

    def validated(pairs: list[Pair], **changes: Any) -> pd.DataFrame:
        write_shards(pairs, paths.INGESTED, shard_pairs=4)
        return pd.read_parquet(validate(section("validate", **changes)))

    return validated


def test_too_many_rejected_and_too_few_accepted_fail_and_show_why(run):
    paths.QUALITY_PAIRS.parent.mkdir(parents=True)
    paths.QUALITY_PAIRS.write_bytes(b"of an earlier run")
    broken = [pair(n, image=b"") for n in (1, 2)] + [pair(3, mask=png(MASK * 0))]
    good = [pair(n) for n in range(4, 9)]
    with pytest.raises(PipelineError) as failure:
        run(broken + good, min_pairs=6)
    sentence = str(failure.value)
    assert "5 pairs are accepted, expected at least 6 pairs" in sentence
    assert "3 of 8 pairs are rejected (37.5 %), expected at most 5 %" in sentence
    assert "image_readable 2, foreground 1" in sentence
    assert "data/quality/docs/index.html" in sentence
    assert "change validate.max_rejected_fraction or validate.min_pairs" in sentence
    report = json.loads(paths.QUALITY_REPORT.read_text("utf-8"))
    assert report["success"] is False
    assert "stage failed" in (paths.QUALITY_DOCS / "index.html").read_text("utf-8")
    # Nothing that a later stage could take for a result.
    assert not paths.QUALITY_PAIRS.exists()


def test_unknown_classes_are_rejected_and_copies_listed(run):
    table = run(
        [pair(1), pair(2), pair(3, image=png(lungs(1)[0])), pair(4), pair(1, "Other")],
        classes=["COVID", "Normal"],
        max_rejected_fraction=0.5,
    )
    assert table["accepted"].tolist() == [True, True, True, True, False]
    assert table["reason"].iloc[4] == (
        "class is 'Other' (expected: class is one of COVID, Normal)"
    )
    report = json.loads(paths.QUALITY_REPORT.read_text("utf-8"))
    emptied = next(e for e in report["expectations"] if e["name"] == "classes_filled")
    assert emptied["found"] == "no pair is accepted of Other"
    assert (table["note"] != "").tolist() == [True, False, True, False, True]
    page = (paths.QUALITY_DOCS / "index.html").read_text("utf-8")
    copies = page[page.index("<h2>Copies</h2>") :]
    assert "COVID-1, COVID-3" in copies
    assert "! differ" in copies  # one image with two masks


def test_same_data_same_bytes(run):
    pairs = [pair(n) for n in range(1, 6)] + [pair(6, mask=b"")]
    hashes = set()
    for _ in range(2):
        run(pairs, max_rejected_fraction=0.5)
        hashes.add(files.sha256(paths.QUALITY_PAIRS.parent))
    assert len(hashes) == 1


def test_missing_shards_are_one_sentence(section):
    with pytest.raises(
        PipelineError, match="should hold Parquet shards but holds none"
    ):
        validate(section("validate"))


def bits_apart(a: np.ndarray, b: np.ndarray) -> int:
    return (int(facts.phash(a), 16) ^ int(facts.phash(b), 16)).bit_count()


def texture(seed: int) -> np.ndarray:
    """A picture with something to see at every scale, as a radiograph has."""
    generator = np.random.default_rng(seed)
    layers = [
        cv2.resize(generator.normal(0, side**-0.5, (side, side)), (299, 299))
        for side in (4, 8, 16, 32)
    ]
    return (128 + 80 * sum(layers)).clip(0, 255).astype(np.uint8)


def test_phash_knows_a_picture_again():
    image = texture(1)
    jpeg = encode(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, 75)
    assert bits_apart(image, cv2.add(image, 10)) <= 24
    assert bits_apart(image, imaging.decode_image(jpeg)) <= 24
    assert bits_apart(image, cv2.resize(image, (1200, 1200))) <= 24
    assert bits_apart(image, np.roll(image, 1, axis=1)) <= 24
    assert bits_apart(image, texture(2)) > 80
    assert bits_apart(image, image[:, ::-1].copy()) > 80


def test_phash_stays_what_it_is():
    """Another hash would regroup every data set that was ever split."""
    x, y = np.meshgrid(np.arange(70), np.arange(60))
    picture = ((x * 7 + y * 13 + x * y // 16) % 256).astype(np.uint8)
    assert facts.phash(picture) == (
        "5d4504988a11229316f0f635bf305b9883c4c5de97c3ee439b36175f5e658fa6"
    )


def test_another_value_may_be_foreground_but_nothing_lets_an_organ_be_missing(
    run,
):
    labels = {"mask": png(MASK // 255)}
    table = run(
        [
            pair(1, **labels),
            pair(2, mask=png(MASK.astype(np.uint16) // 255)),
            pair(3),
            pair(4, mask=png(MASK * 0)),
            pair(5, mask=png(MASK * 0), may_be_empty=True),
        ],
        mask_foreground=1,
        foreground_min=0.0,
        max_rejected_fraction=1.0,
    )
    assert list(table["accepted"]) == [True, True, False, False, True]
    assert table["reason"][2] == (
        "mask values are 0,255 (expected: mask values are 0 and 1 only)"
    )
    assert table["reason"][3].endswith(
        "(expected: foreground is more than 0, at most 0.75, of the mask)"
    )
    share = table["foreground_fraction"][0]
    assert share == table["foreground_fraction"][1] == round((MASK > 0).mean(), 6)
    for encoded in (labels["mask"], png(MASK.astype(np.uint16) // 255)):
        assert np.array_equal(imaging.decode_mask(encoded), MASK > 0)
