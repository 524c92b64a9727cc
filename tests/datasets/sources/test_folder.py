"""Is a directory read as its zip is, and is what nobody should read refused?"""

import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import PipelineError
from stages.core.params import IngestParams, Params
from stages.datasets.sources import folder
from tests.conftest import radiography_tree


@pytest.fixture
def ingest_params(tiny_params: Callable[..., Params]) -> Callable[..., IngestParams]:
    def build(place: Path | str, **overrides: Any) -> IngestParams:
        values = {f"ingest.{key}": value for key, value in overrides.items()}
        return tiny_params(
            **{"ingest.source": "folder", "ingest.folder": str(place), **values}
        ).ingest

    return build


Build = Callable[..., IngestParams]


def zipped(top: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Packs a folder, its own name included, as Kaggle does."""
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


def one_pair(stem: str = "COVID-1") -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    return [(f"COVID/{kind}/{stem}.png", kind.encode()) for kind in ("images", "masks")]


def refusal(params: IngestParams) -> str:
    with pytest.raises(PipelineError) as error:
        list(folder.pairs(params))
    assert "\n" not in str(error.value)
    return str(error.value)


class TestRead:
    def test_bytes_are_unaltered_and_in_order(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path / "in", {"COVID": 11, "Normal": 2})
        found = list(folder.pairs(ingest_params(tmp_path / "in")))
        assert [pair.pair_id for pair in found] == [
            *(f"COVID-{number}" for number in range(1, 12)),
            *(f"Normal-{number}" for number in (1, 2)),
        ]
        for pair in found:
            assert pair.image == (tmp_path / "in" / pair.image_path).read_bytes()
            assert pair.mask == (tmp_path / "in" / pair.mask_path).read_bytes()
            assert pair.problem == ""
            assert pair.image_path.startswith(f"{top.name}/{pair.class_name}/images/")

    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_zip_reads_as_its_folder(
        self, tmp_path: Path, ingest_params: Build, method: int
    ) -> None:
        top = radiography_tree(tmp_path / "in")
        archive = zipped(top, tmp_path / "kaggle.zip", method)
        assert list(folder.pairs(ingest_params(archive))) == list(
            folder.pairs(ingest_params(tmp_path / "in"))
        )

    def test_a_zip_is_not_unpacked(self, tmp_path: Path, ingest_params: Build) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair())
        list(folder.pairs(ingest_params(archive)))
        assert list(tmp_path.rglob("*")) == [archive]

    def test_only_what_is_asked_for_is_read(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        radiography_tree(tmp_path / "in", {"COVID": 3, "Normal": 3})
        found = folder.pairs(ingest_params(tmp_path, classes=["Normal"], limit=2))
        assert len(found) == 2
        assert [pair.pair_id for pair in found] == ["Normal-1", "Normal-2"]

    def test_foreign_names_pair(self, tmp_path: Path, ingest_params: Build) -> None:
        stem = "Röntgen (1), 肺 \n x"
        write_zip(tmp_path / "a.zip", *one_pair(stem))
        for kind in ("images", "masks"):
            path = tmp_path / "in" / "COVID" / kind / f"{stem}.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(kind.encode())
        (from_zip,) = folder.pairs(ingest_params(tmp_path / "a.zip"))
        (from_folder,) = folder.pairs(ingest_params(tmp_path / "in"))
        assert from_zip == from_folder
        assert from_zip.pair_id == f"COVID-{stem}"

    def test_hidden_files_and_folders_are_left_alone(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path / "in", {"COVID": 1})
        films = list((top / "COVID").rglob("*.png"))
        hidden = [top / h for h in (".Trash-1000", ".backup", "__MACOSX", "$RECYCLE")]
        for film in films:
            for copy in (
                film.with_name(f"._{film.name}"),
                *(place / film.relative_to(top) for place in hidden),
            ):
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(b"x")
        archive = zipped(tmp_path / "in", tmp_path / "a.zip")
        (top / ".gone.png").symlink_to("nowhere")
        for place in (tmp_path / "in", archive):
            (pair,) = folder.pairs(ingest_params(place))
            assert pair.image
            assert b"x" not in (pair.image, pair.mask)

    def test_an_orphan_has_one_side_and_no_problem(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path, {"COVID": 3})
        (top / "COVID" / "masks" / "COVID-1.png").unlink()
        (top / "COVID" / "images" / "COVID-2.png").unlink()
        first, second, third = folder.pairs(ingest_params(tmp_path))
        assert (first.image is None, first.mask, first.mask_path) == (False, None, "")
        assert (second.image, second.image_path) == (None, "")
        assert third.image
        assert third.mask
        assert first.problem == second.problem == third.problem == ""

    def test_a_zero_byte_file_is_passed_on(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        (top / "COVID" / "images" / "COVID-1.png").write_bytes(b"")
        (pair,) = folder.pairs(ingest_params(tmp_path))
        assert pair.image == b""
        assert pair.problem == ""


class TestOneBadFile:
    def test_too_large_spoils_its_pair_only(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path / "in", {"COVID": 2})
        large = top / "COVID" / "masks" / "COVID-1.png"
        large.write_bytes(bytes(10_001))
        archive = zipped(top, tmp_path / "a.zip")
        for place in (tmp_path / "in", archive):
            bad, good = folder.pairs(ingest_params(place, max_file_bytes=10_000))
            assert bad.image is not None
            assert bad.mask is None
            assert bad.problem == (
                "mask has 10001 bytes, more than ingest.max_file_bytes (10000)"
            )
            assert good.problem == ""

    def test_just_allowed_is_read(self, tmp_path: Path, ingest_params: Build) -> None:
        top = radiography_tree(tmp_path / "in", {"COVID": 1})
        (top / "COVID" / "masks" / "COVID-1.png").write_bytes(bytes(10_000))
        for place in (tmp_path / "in", zipped(top, tmp_path / "a.zip")):
            (pair,) = folder.pairs(ingest_params(place, max_file_bytes=10_000))
            assert pair.mask == bytes(10_000)

    def test_a_bad_checksum(self, tmp_path: Path, ingest_params: Build) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair(), *one_pair("COVID-2"))
        data = archive.read_bytes()
        archive.write_bytes(
            data.replace(b"images", b"imagez", 2).replace(
                b"COVID/imagez", b"COVID/images", 1
            )
        )
        bad, good = folder.pairs(ingest_params(archive))
        assert bad.image is None
        assert bad.mask == b"masks"
        assert bad.problem.startswith("image is damaged in the zip (Bad CRC-32")
        assert good.problem == ""

    def test_more_than_declared_is_not_inflated(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("COVID/images/COVID-1.png", bytes(5_000_000))
            file.writestr("COVID/masks/COVID-1.png", b"mask")
        real, declared = struct.pack("<I", 5_000_000), struct.pack("<I", 1_000)
        archive.write_bytes(archive.read_bytes().replace(real, declared))
        (pair,) = folder.pairs(ingest_params(archive, max_file_bytes=10_000))
        assert pair.image is None
        assert pair.problem.startswith("image is damaged in the zip")

    def test_a_member_twice_with_the_same_bytes(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair(), *one_pair())
        (pair,) = folder.pairs(ingest_params(archive))
        assert (pair.image, pair.mask, pair.problem) == (b"images", b"masks", "")

    def test_a_member_twice_with_other_bytes(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        other = ("COVID/./images/COVID-1.png", b"other")
        archive = write_zip(tmp_path / "a.zip", *one_pair(), other)
        (pair,) = folder.pairs(ingest_params(archive))
        assert pair.image is None
        assert pair.problem == "image is in the zip twice, with different contents"

    def test_a_link_to_nothing(self, tmp_path: Path, ingest_params: Build) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        image = top / "COVID" / "images" / "COVID-1.png"
        image.unlink()
        image.symlink_to("gone.png")
        (pair,) = folder.pairs(ingest_params(tmp_path))
        assert pair.problem == "image is a link to a file that does not exist"

    def test_a_table_that_names_what_is_not_there(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        tree = tmp_path / "in"
        tree.mkdir()
        (tree / "a.png").write_bytes(b"a")
        (tree / "pairs.csv").write_text("image,mask\na.png,b.png\n")
        for place in (tree, zipped(tree, tmp_path / "a.zip")):
            (pair,) = folder.pairs(ingest_params(place, layout="pairs"))
            assert pair.image == b"a"
            assert pair.problem == "mask is named by a table but does not exist"


class TestRefusedFolder:
    def test_missing(self, ingest_params: Build) -> None:
        sentence = refusal(ingest_params("no/such\x1b place"))
        assert "'no/such\\x1b place' does not exist" in sentence

    def test_a_name_too_long(self, ingest_params: Build) -> None:
        assert "cannot be opened (File name" in refusal(ingest_params("x" * 5000))

    def test_empty(self, tmp_path: Path, ingest_params: Build) -> None:
        (tmp_path / "in").mkdir()
        sentence = refusal(ingest_params(tmp_path / "in"))
        assert "holds no pair in the layout covid19_radiography" in sentence
        assert "it holds 0 files" in sentence

    def test_the_zip_lies_inside(self, tmp_path: Path, ingest_params: Build) -> None:
        (tmp_path / "in").mkdir()
        write_zip(tmp_path / "in" / "archive.zip", *one_pair())
        sentence = refusal(ingest_params(tmp_path / "in"))
        assert "set ingest.folder to the zip itself ('archive.zip')" in sentence

    def test_one_side_only(self, tmp_path: Path, ingest_params: Build) -> None:
        write_zip(tmp_path / "a.zip", *one_pair()[:1])
        sentence = refusal(ingest_params(tmp_path / "a.zip"))
        assert "1 images or masks without a partner" in sentence

    def test_an_empty_class(self, tmp_path: Path, ingest_params: Build) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        (top / "Normal" / "images").mkdir(parents=True)
        (top / "Normal" / "masks").mkdir()
        sentence = refusal(ingest_params(tmp_path, classes=["Normal"]))
        assert "ingest.classes names 'Normal'" in sentence
        assert "it holds 'COVID'" in sentence

    def test_a_link_that_leaves(self, tmp_path: Path, ingest_params: Build) -> None:
        radiography_tree(tmp_path / "elsewhere", {"COVID": 1})
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "out").symlink_to(tmp_path / "elsewhere")
        assert "is a link to a folder outside" in refusal(
            ingest_params(tmp_path / "in")
        )

    def test_links_inside_are_followed_once(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        (top / "COVID" / "masks").rename(top / "drawn")
        (top / "COVID" / "masks").symlink_to("../drawn")
        (top / "COVID" / "up").symlink_to("../..")
        (pair,) = folder.pairs(ingest_params(tmp_path))
        assert pair.mask == (top / "drawn" / "COVID-1.png").read_bytes()

    def test_a_file_link_is_read_inside_the_folder_only(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path / "in", {"COVID": 1})
        image = top / "COVID" / "images" / "COVID-1.png"
        secret = tmp_path / "token"
        inside = image.rename(top / "cached")
        for target in (inside, secret):
            target.touch()
            image.symlink_to(target)
            (pair,) = folder.pairs(ingest_params(tmp_path / "in"))
            image.unlink()
            if target == inside:
                assert pair.image == inside.read_bytes()
            else:
                assert pair.image is None
                assert "image is a link that leaves ingest.folder" in pair.problem

    def test_a_name_that_is_not_utf8(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9.png")).write_bytes(b"x")
        sentence = refusal(ingest_params(tmp_path))
        assert "a name that is not UTF-8 (b'caf\\xe9.png')" in sentence

    def test_a_pipe_is_neither(self, tmp_path: Path, ingest_params: Build) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "is neither" in refusal(ingest_params(tmp_path / "pipe"))

    def test_a_pipe_inside_is_passed_over(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        top = radiography_tree(tmp_path, {"COVID": 1})
        os.mkfifo(top / "COVID" / "images" / "COVID-2.png")
        assert len(folder.pairs(ingest_params(tmp_path))) == 1


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info


class TestRefusedZip:
    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"", "but is empty"),
            (b"Rar!\x1a\x07", "but starts with b'Rar!'"),
            (b"PK\x03\x04" + bytes(40), "cut short or damaged"),
        ],
    )
    def test_no_zip(
        self, tmp_path: Path, ingest_params: Build, data: bytes, sentence: str
    ) -> None:
        (tmp_path / "a.zip").write_bytes(data)
        assert sentence in refusal(ingest_params(tmp_path / "a.zip"))

    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
    def test_truncated(self, tmp_path: Path, ingest_params: Build, kept: float) -> None:
        archive = zipped(radiography_tree(tmp_path), tmp_path / "a.zip")
        data = archive.read_bytes()
        archive.write_bytes(data[: int(len(data) * kept)])
        assert "cut short or damaged" in refusal(ingest_params(archive))

    @pytest.mark.parametrize(
        "name",
        [
            "../COVID-1.png",
            "a/../../b.png",
            "..",
            "/etc/passwd",
            "//host/share/a.png",
            "C:/Windows/a.png",
            "..\\..\\a.png",
            "\\\\host\\a.png",
            "C:\\a.png",
        ],
    )
    def test_a_name_that_points_outside(
        self, tmp_path: Path, ingest_params: Build, name: str
    ) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair(), (name, b"x"))
        sentence = refusal(ingest_params(archive))
        assert repr(name) in sentence
        assert "points outside the zip" in sentence

    @pytest.mark.parametrize("name", ["COVID\\images\\1.png", "a\0b.png"])
    def test_a_name_that_no_zip_should_have(
        self, tmp_path: Path, ingest_params: Build, name: str
    ) -> None:
        place = "N" * len(name)
        archive = write_zip(tmp_path / "a.zip", *one_pair(), (place, b"x"))
        archive.write_bytes(archive.read_bytes().replace(place.encode(), name.encode()))
        sentence = refusal(ingest_params(archive))
        assert repr(name) in sentence
        assert "a name that is not portable" in sentence

    def test_a_link(self, tmp_path: Path, ingest_params: Build) -> None:
        link = _link("COVID/images/COVID-2.png")
        archive = write_zip(tmp_path / "a.zip", *one_pair(), (link, b"/etc/passwd"))
        assert "COVID-2.png', a link" in refusal(ingest_params(archive))

    def test_encrypted(self, tmp_path: Path, ingest_params: Build) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair())
        data = bytearray(archive.read_bytes())
        # Bit 0 of the flags, at byte 8 of each central entry.
        data[data.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(data)
        assert "which is encrypted" in refusal(ingest_params(archive))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_method_that_is_not_read(
        self, tmp_path: Path, ingest_params: Build, method: int
    ) -> None:
        archive = zipped(radiography_tree(tmp_path), tmp_path / "a.zip", method)
        assert f"zip method {method}" in refusal(ingest_params(archive))

    def test_too_many_members(self, tmp_path: Path, ingest_params: Build) -> None:
        archive = write_zip(tmp_path / "a.zip", *one_pair(), *one_pair("COVID-2"))
        assert len(folder.pairs(ingest_params(archive, max_zip_members=4))) == 2
        sentence = refusal(ingest_params(archive, max_zip_members=3))
        assert "lists 4 files, more than ingest.max_zip_members (3)" in sentence

    def test_a_bomb(self, tmp_path: Path, ingest_params: Build) -> None:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in one_pair():
                file.writestr(name, data)
            file.writestr("COVID/images/COVID-2.png", bytes(20_000_000))
        assert archive.stat().st_size < 30_000
        sentence = refusal(ingest_params(archive, max_zip_bytes=10_000_000))
        assert "unpacks to 20000011 bytes, more than ingest.max_zip_bytes" in sentence

    def test_any_damage_is_a_sentence_or_a_problem(
        self, tmp_path: Path, ingest_params: Build
    ) -> None:
        archive = zipped(
            radiography_tree(tmp_path, {"COVID": 2}, image_size=8, mask_size=8),
            tmp_path / "a.zip",
        )
        data = archive.read_bytes()
        central = data.index(b"PK\x01\x02")
        generator = random.Random(1)
        outcomes = {"refused": 0, "problem": 0, "whole": 0}
        for trial in range(500):
            bad = bytearray(data)
            for _ in range(generator.randint(1, 3)):
                start = central if trial % 3 else 0
                bad[generator.randrange(start, len(bad))] = generator.randrange(256)
            archive.write_bytes(bad)
            try:
                found = list(folder.pairs(ingest_params(archive)))
            except PipelineError:
                outcomes["refused"] += 1
            else:
                has_problem = any(pair.problem for pair in found)
                outcomes["problem" if has_problem else "whole"] += 1
        assert min(outcomes.values()) > 10, outcomes


class TestDescribe:
    def test_no_path_of_the_machine(self, tmp_path: Path, ingest_params: Build) -> None:
        facts = folder.describe(ingest_params(tmp_path / "my set"))
        assert facts["folder"] == "my set"
        assert str(tmp_path) not in str(facts)

    def test_the_facts_of_the_layout(self, ingest_params: Build) -> None:
        facts = folder.describe(ingest_params("x", layout="lgg_mri"))
        assert facts["dataset"] == "LGG MRI segmentation"
        assert facts["licence"] == "CC BY-NC-SA 4.0"
        assert facts["version"] is None
        assert "tumour" in facts["mask_definition"]
