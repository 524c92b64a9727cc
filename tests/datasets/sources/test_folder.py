"""Is a directory read as its zip is, and is unsafe input refused?"""

import logging
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from stages.core import paths
from stages.core.errors import PipelineError
from stages.datasets.sources import folder
from stages.datasets.tree import check_for_dvc
from tests.conftest import radiography_tree


@pytest.fixture
def read(section):
    return lambda place, **changes: list(
        folder.pairs(section("ingest", source="folder", folder=str(place), **changes))
    )


@pytest.fixture
def refusal(read):
    def refuse(place: Path | str, **changes: Any) -> str:
        with pytest.raises(PipelineError) as error:
            read(place, **changes)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refuse


@pytest.fixture
def top(tmp_path):
    """A folder of one pair, COVID-1."""
    return radiography_tree(tmp_path / "in", {"COVID": 1})


def zipped(top: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Packs a folder, its own name included, as Kaggle does."""
    target = top.parent.parent / "a.zip"
    with zipfile.ZipFile(target, "w", method) as file:
        for path in sorted(top.rglob("*"), reverse=True):
            file.write(path, path.relative_to(top.parent).as_posix())
    return target


def write_zip(target: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as file:
        warnings.simplefilter("ignore")  # duplicate names are meant
        for name, data in members:
            file.writestr(name, data)
    return target


def one_pair(stem: str = "COVID-1") -> list[tuple[str, bytes]]:
    return [(f"COVID/{kind}/{stem}.png", kind.encode()) for kind in ("images", "masks")]


# What is read


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_reads_as_its_folder_unaltered_and_in_order(tmp_path, read, method):
    top = radiography_tree(tmp_path / "in", {"COVID": 10, "Normal": 2})
    for film in (top / "COVID").rglob("COVID-10.png"):
        film.rename(film.with_name("Röntgen (1), 肺 \n x.png"))
    found = read(tmp_path / "in")
    assert [pair.pair_id for pair in found] == [
        *(f"COVID-{number}" for number in range(1, 10)),
        "COVID-Röntgen (1), 肺 \n x",
        *(f"Normal-{number}" for number in (1, 2)),
    ]
    for pair in found:
        assert pair.image == (tmp_path / "in" / pair.image_path).read_bytes()
        assert pair.mask == (tmp_path / "in" / pair.mask_path).read_bytes()
        assert pair.problem == ""
    archive = zipped(top, method)
    assert read(archive) == found
    assert {path.name for path in tmp_path.iterdir()} == {"in", "a.zip"}  # not unpacked


def test_what_lies_around_the_data_is_left_alone(top, read, caplog):
    films = list((top / "COVID").rglob("*.png"))
    caches = (".Trash-1000", ".backup", "__MACOSX", "$RECYCLE", "@eaDir", "#recycle")
    hidden = [top / name for name in caches]
    for film in films:
        for copy in (
            film.with_name(f"._{film.name}"),
            *(place / film.relative_to(top) for place in hidden),
        ):
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(b"x")
    archive = zipped(top)
    (top / ".gone.png").symlink_to("nowhere")
    os.mkfifo(top / "COVID" / "images" / "COVID-2.png")
    caplog.set_level(logging.INFO)
    for place, count in ((top, 10), (archive, 14)):
        caplog.clear()
        (pair,) = read(place)
        assert pair.image
        assert b"x" not in (pair.image, pair.mask)
        assert f"left out {count} entries" in caplog.text


def test_an_orphan_has_one_side_and_no_problem(tmp_path, read):
    top = radiography_tree(tmp_path, {"COVID": 3})
    (top / "COVID" / "masks" / "COVID-1.png").unlink()
    (top / "COVID" / "images" / "COVID-2.png").unlink()
    first, second, third = read(tmp_path)
    assert (first.image is None, first.mask, first.mask_path) == (False, None, "")
    assert (second.image, second.image_path) == (None, "")
    assert third.image
    assert third.mask
    assert first.problem == second.problem == third.problem == ""


# One bad file spoils its pair only


@pytest.mark.parametrize(("size", "is_read"), [(10_000, True), (10_001, False)])
def test_too_large(tmp_path, read, size, is_read):
    top = radiography_tree(tmp_path / "in", {"COVID": 2})
    (top / "COVID" / "masks" / "COVID-1.png").write_bytes(bytes(size))
    for place in (top, zipped(top)):
        first, other = read(place, max_file_bytes=10_000)
        assert first.image is not None
        assert (first.mask is not None) == is_read
        assert is_read or first.problem == (
            "mask has 10001 bytes, more than ingest.max_file_bytes (10000)"
        )
        assert other.problem == ""


def test_more_than_declared_is_not_inflated(tmp_path, read):
    members = one_pair() + one_pair("COVID-2")
    members[0] = members[0][0], bytes(5_000_000)
    archive = write_zip(tmp_path / "a.zip", *members)
    real, declared = struct.pack("<I", 5_000_000), struct.pack("<I", 1_000)
    archive.write_bytes(archive.read_bytes().replace(real, declared))
    bad, good = read(archive, max_file_bytes=10_000)
    assert (bad.image, bad.mask, good.problem) == (None, b"masks", "")
    assert bad.problem.startswith("image cannot be read from the zip (Bad CRC-32")


def test_members_that_cannot_be_read(tmp_path, read):
    packed = zipfile.ZipInfo("COVID/images/COVID-2.png")
    packed.compress_type = zipfile.ZIP_LZMA
    again = ("COVID/./images/COVID-3.png", b"other")
    same = ("COVID\\images\\COVID-4.png", b"images")
    archive = write_zip(
        tmp_path / "a.zip",
        *one_pair("COVID-1"),
        (packed, b"images"),
        *one_pair("COVID-2")[1:],
        *(*one_pair("COVID-3"), again),
        *(*one_pair("COVID-4"), same),
    )
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= (
        1  # encrypted: bit 0 of a central entry's flags
    )
    archive.write_bytes(data)
    encrypted, by_lzma, twice, once = (pair.problem for pair in read(archive))
    assert encrypted.startswith("image cannot be read from the zip (")
    assert "is encrypted" in encrypted
    assert "unsupported method (zip method 14)" in by_lzma
    assert twice == "image is in the zip twice, with different contents"
    assert once == ""


def test_a_file_link_is_read_inside_the_folder_only(top, read):
    image = top / "COVID" / "images" / "COVID-1.png"
    inside, secret = image.rename(top / "cached"), top.parent.parent / "token"
    secret.touch()
    for target, problem in (
        (inside, ""),
        (secret, "image is a link that leaves ingest.folder; copy the file"),
        (top / "gone", "image is a link to a file that does not exist"),
    ):
        image.symlink_to(target)
        (pair,) = read(top)
        image.unlink()
        assert pair.problem == problem
        assert pair.image == (None if problem else inside.read_bytes())


def test_a_table_that_names_a_missing_file(tmp_path, read):
    tree = tmp_path / "in" / "set"
    tree.mkdir(parents=True)
    (tree / "a.png").write_bytes(b"a")
    (tree / "pairs.csv").write_text("image,mask\na.png,b.png\n")
    for place in (tree, zipped(tree)):
        (pair,) = read(place, layout="pairs")
        assert pair.image == b"a"
        assert pair.problem == "mask is named by a table but does not exist"


# Refused folders


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("no/such\x1b place", "'no/such\\x1b place' does not exist"),
        ("pipe", "'pipe' is neither"),
        ("empty", "holds no pair in the layout covid19_radiography"),
        ("outer", "set ingest.folder to the zip itself ('archive.zip')"),
        ("half.zip", "1 images or masks without a partner"),
        ("linked", "is a link to a folder outside"),
    ],
)
def test_a_folder_is_refused(tmp_path, refusal, place, sentence):
    os.mkfifo("pipe")
    for name in ("empty", "outer", "linked"):
        Path(name).mkdir()
    write_zip(Path("outer/archive.zip"), *one_pair())
    write_zip(Path("half.zip"), *one_pair()[:1])
    Path("linked/out").symlink_to(tmp_path)
    assert sentence in refusal(place)


def test_links_inside_are_followed_once(top, read):
    (top / "COVID" / "masks").rename(top / "drawn")
    (top / "COVID" / "masks").symlink_to("../drawn")
    (top / "COVID" / "up").symlink_to("..")
    (pair,) = read(top)
    assert pair.mask == (top / "drawn" / "COVID-1.png").read_bytes()


def test_a_name_that_is_not_utf8(top, refusal):
    Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9.png")).write_bytes(b"x")
    assert "caf\\udce9.png' has a name that is not UTF-8" in refusal(top)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.symlink_to("nowhere"), "is a link to a file that does not"),
        (os.mkfifo, "is neither a file nor a folder"),
        (
            lambda path: Path(os.fsdecode(os.fsencode(path) + b"\xe9")).touch(),
            "has a name that is not UTF-8",
        ),
    ],
)
def test_what_dvc_cannot_hash_is_named_before_it_tries(spoil, problem):
    top = radiography_tree(paths.INCOMING, {"COVID": 1})
    check_for_dvc(paths.INCOMING)
    (top / ".hidden").mkdir()
    spoil(top / ".hidden" / "odd")
    check_for_dvc(paths.INCOMING)  # .dvcignore keeps DVC from it
    spoil(top / "odd")
    with pytest.raises(PipelineError, match=problem):
        check_for_dvc(paths.INCOMING)


# Refused zips


@pytest.mark.parametrize("data", [b"", b"Rar!\x1a\x07", b"PK\x03\x04" + bytes(40)])
def test_other_files_are_no_zip(tmp_path, refusal, data):
    (tmp_path / "a.zip").write_bytes(data)
    assert "is not a zip or is damaged" in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize(
    "name", ["../COVID-1.png", "a/../../b.png", "/etc/passwd", "..\\..\\a.png"]
)
def test_a_name_that_points_outside_a_zip(tmp_path, refusal, name):
    archive = write_zip(tmp_path / "a.zip", *one_pair(), (name, b"x"))
    assert "a name that points outside the zip" in refusal(archive)


def test_limits_of_zips(top, refusal):
    (top / "COVID" / "images" / "bomb.png").write_bytes(bytes(20_000_000))
    archive = zipped(top)
    assert archive.stat().st_size < 50_000
    assert "more than ingest.max_zip_bytes" in refusal(
        archive, max_zip_bytes=10_000_000
    )
    assert "more than ingest.max_zip_members (3)" in refusal(archive, max_zip_members=3)
