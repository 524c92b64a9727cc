"""Does each layout pair what belongs together, on trees of names made here?"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from stages.core.errors import PipelineError
from stages.datasets import layouts
from stages.datasets.pairs import Pair
from stages.datasets.tree import UnreadableError


class Names:
    """A tree that has names, and bytes for the few files that a layout reads."""

    label = "the tree"

    def __init__(self, *names: str, **contents: bytes) -> None:
        self.contents = {name.replace("__", "."): b for name, b in contents.items()}
        self.names: Sequence[str] = [*names, *self.contents]

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            raise UnreadableError("is closed")
        return self.contents[name]


def find(layout: str, *names: str, target: str = "", **contents: bytes) -> list[Pair]:
    found = layouts.load(layout).find(Names(*names, **contents), target)
    return sorted(found, key=lambda entry: (entry.pair_id, entry.image_path))


def wanted(
    layout: str,
    *names: str,
    target: str = "",
    classes: Sequence[str] = (),
    limit: int = 0,
) -> list[Pair]:
    return layouts.find_pairs(
        layout, Names(*names), target=target, classes=classes, limit=limit
    )


CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
LUNG_OPACITY = ["Lung_Opacity-1", "Lung_Opacity-2", "Lung_Opacity-10"]
# The published trees in small: names, and the pairs that are in them.
TREES = {
    "covid19_radiography": (
        [
            f"COVID-19_Radiography_Dataset/{name}/{kind}/{name}-{number}.png"
            for name in CLASSES
            for kind in ("images", "masks")
            for number in (1, 2, 10)
        ],
        12,
    ),
    "covid_qu_ex": (
        [
            f"{tree}/{tree}/{side}/{name}/{kind}/{stem} ({number}).png"
            for tree in ("Lung Segmentation Data", "Infection Segmentation Data")
            for side, number in (("Train", 1), ("Val", 2), ("Test", 3))
            for name, stem in (
                ("COVID-19", "covid"),
                ("Non-COVID", "non_COVID"),
                ("Normal", "Normal"),
            )
            for kind in ("images", "lung masks", "infection masks")
            if tree.startswith("Infection") or kind != "infection masks"
        ],
        9,
    ),
    "lgg_mri": (
        [
            f"{top}kaggle_3m/{patient}/{patient}_{number}{ending}.tif"
            for top in ("", "lgg-mri-segmentation/")
            for patient in ("TCGA_CS_4941_19960909", "TCGA_DU_5849_19950405")
            for number in (1, 2, 10)
            for ending in ("", "_mask")
        ],
        6,
    ),
    "pairs": ([f"{kind}/{n}.png" for kind in ("images", "masks") for n in "abc"], 3),
}


def test_every_layout_has_a_tree_here():
    assert set(TREES) == set(layouts.names())


@pytest.mark.parametrize("layout", TREES)
class TestContract:
    def test_pairs_its_tree_whole_for_every_target(self, layout):
        names, expected = TREES[layout]
        about = layouts.load(layout).ABOUT
        assert about.dataset
        assert about.licence
        for key in ("mask_definition_id", "mask_definition"):
            meant = {getattr(about.facts(target), key) for target in about.targets}
            assert len(meant) == len(about.targets)
        others = ["README.md.txt", "COVID.metadata.xlsx", "Thumbs.db", "data.csv"]
        for target in about.targets:
            found = wanted(layout, *others, *names, target=target)
            assert all(entry.is_complete and entry.class_name for entry in found)
            assert len({entry.pair_id for entry in found}) == len(found) == expected
            paths = {path for e in found for path in (e.image_path, e.mask_path)}
            assert paths <= set(names)
        first = next(iter(about.targets))
        assert wanted(layout, *names, target=first) == wanted(layout, *names)

    def test_an_upper_case_ending_pairs(self, layout):
        names, expected = TREES[layout]
        upper = [
            str(Path(name).with_suffix(Path(name).suffix.upper())) for name in names
        ]
        assert sum(entry.is_complete for entry in find(layout, *upper)) == expected

    def test_orphans_are_found(self, layout):
        names, expected = TREES[layout]
        whole = find(layout, *names)
        gone = {whole[0].mask_path, whole[1].image_path}
        left = find(layout, *(n for n in names if not _is_copy_of(n, gone)))
        assert len(left) == expected
        orphans = [entry for entry in left if not entry.is_complete]
        assert {e.image_path for e in orphans} == {whole[0].image_path, ""}
        assert {e.mask_path for e in orphans} == {"", whole[1].mask_path}

    def test_a_composed_and_a_decomposed_name_pair(self, layout):
        names, _ = TREES[layout]
        whole = find(layout, *names)[0]
        stem = Path(whole.image_path).stem
        forms = {whole.image_path: "NFC", whole.mask_path: "NFD"}
        renamed = [
            str(Path(name).with_name(Path(name).name.replace(stem, f"{stem}é")))
            for name in names
        ]
        renamed = [
            unicodedata.normalize(forms[name], new) if name in forms else name
            for name, new in zip(names, renamed, strict=True)
        ]
        changed = [e for e in find(layout, *renamed) if "é" in e.pair_id]
        assert [entry.is_complete for entry in changed] == [True]

    def test_nothing_of_it_is_one_sentence(self, layout):
        with pytest.raises(PipelineError) as error:
            wanted(layout, "notes.txt", "a\x1b[31m/b.png")
        assert layout in str(error.value)
        assert "\x1b" not in str(error.value)
        assert "\n" not in str(error.value)

    def test_another_layout_is_recognised(self, layout):
        other = "lgg_mri" if layout != "lgg_mri" else "covid19_radiography"
        names, _ = TREES[layout]
        with pytest.raises(PipelineError, match=r"set ingest\.layout to "):
            wanted(other, *names)


def _is_copy_of(name: str, gone: set[str]) -> bool:
    """The file itself, or its repetition elsewhere in the tree."""
    return any(Path(name).parts[-4:] == Path(g).parts[-4:] for g in gone) or any(
        name.endswith(f"/{g}") for g in gone
    )


def test_classes_and_pairs_come_in_natural_order_up_to_the_limit():
    names, _ = TREES["covid19_radiography"]
    found = wanted("covid19_radiography", *names)
    assert [entry.pair_id for entry in found[2:5]] == ["COVID-10", *LUNG_OPACITY[:2]]
    found = wanted("covid19_radiography", *names, classes=CLASSES[1::-1], limit=2)
    assert [e.pair_id for e in found] == ["COVID-1", "COVID-2", *LUNG_OPACITY[:2]]


def test_an_absent_class_or_target_names_those_that_are_there():
    names, _ = TREES["covid19_radiography"]
    with pytest.raises(PipelineError) as error:
        wanted("covid19_radiography", *names, classes=["COVID", "covid"])
    assert "'covid'" in str(error.value)
    assert "'COVID', 'Lung_Opacity', 'Normal', 'Viral Pneumonia'" in str(error.value)
    with pytest.raises(PipelineError, match="should be lung or infection for"):
        wanted("covid_qu_ex", *TREES["covid_qu_ex"][0], target="spleen")


def test_masks_of_lesions_may_be_empty():
    assert {
        (name, target)
        for name in TREES
        for target, definition in layouts.load(name).ABOUT.targets.items()
        if definition.may_be_empty
    } == {("covid_qu_ex", "infection"), ("lgg_mri", "tumour"), ("pairs", "lesion")}


class TestRadiography:
    @pytest.mark.parametrize("top", ["", "COVID-19_Radiography_Dataset/", "a/b/c/"])
    def test_the_top_folder_may_be_missing_or_deeper(self, top):
        names = [f"{top}A/{kind}/1 (ü).png" for kind in ("images", "masks")]
        (pair,) = find("covid19_radiography", *names)
        assert (pair.pair_id, pair.class_name) == ("A-1 (ü)", "A")
        assert [pair.image_path, pair.mask_path] == names

    def test_two_images_of_one_name_leave_one_without_a_mask(self):
        found = find(
            "covid19_radiography",
            "COVID/images/COVID-1.png",
            "COVID/images/COVID-1.jpg",
            "COVID/masks/COVID-1.png",
        )
        assert [entry.pair_id for entry in found] == ["COVID-1", "COVID-1"]
        assert sorted(entry.is_complete for entry in found) == [False, True]


class TestCovidQuEx:
    def test_sides_of_its_own_split_are_kept(self):
        found = find("covid_qu_ex", *TREES["covid_qu_ex"][0])
        assert {entry.pair_id: entry.given_split for entry in found} == {
            f"{stem} ({number})": side
            for stem in ("covid", "non_COVID", "Normal")
            for number, side in ((1, "train"), (2, "validation"), (3, "test"))
        }
        classes = {entry.class_name for entry in found}
        assert classes == {"COVID-19", "Non-COVID", "Normal"}
        # Not its excerpt, the tree of infections, which alone is read too.
        assert all(e.image_path.startswith("Lung Segmentation Data/") for e in found)
        names = [n for n in TREES["covid_qu_ex"][0] if n.startswith("Infection")]
        for target, folder in (("lung", names), ("infection", TREES["covid_qu_ex"][0])):
            found = find("covid_qu_ex", *folder, target=target)
            assert len(found) == 9
            assert all(e.image_path.startswith("Infection") for e in found)
            assert all(f"/{target} masks/" in e.mask_path for e in found)
        lungs = [e.mask_path.replace("infection masks", "lung masks") for e in found]
        assert [e.region_path for e in found] == lungs

    def test_the_tree_of_lungs_has_no_infection(self):
        names = [n for n in TREES["covid_qu_ex"][0] if n.startswith("Lung")]
        with pytest.raises(PipelineError) as error:
            wanted("covid_qu_ex", *names, target="infection")
        assert "set ingest.target to lung, which finds 9 pairs" in str(error.value)

    def test_a_name_on_two_sides_stays_two_pairs(self):
        found = find(
            "covid_qu_ex",
            *(
                f"{side}/Normal/{kind}/Normal (100).png"
                for side in ("Train", "Test")
                for kind in ("images", "lung masks")
            ),
        )
        assert [entry.pair_id for entry in found] == [
            "test-Normal-Normal (100)",
            "train-Normal-Normal (100)",
        ]


class TestLgg:
    def test_the_patient_is_the_group(self):
        found = find("lgg_mri", *TREES["lgg_mri"][0])
        assert {entry.group for entry in found} == {
            "TCGA_CS_4941_19960909",
            "TCGA_DU_5849_19950405",
        }
        assert all(entry.pair_id.startswith(entry.group) for entry in found)
        # Not the copy of the tree inside, which alone is read too.
        assert all(entry.image_path.startswith("kaggle_3m/") for entry in found)
        names = [n for n in TREES["lgg_mri"][0] if n.startswith("lgg-mri")]
        assert len(find("lgg_mri", *names)) == 6


class TestPairs:
    def test_subfolders_pair_by_their_path(self):
        found = find(
            "pairs", "images/x/1.png", "masks/x/1.tif", "images/y/1.png", "masks/1.png"
        )
        assert [(entry.pair_id, entry.is_complete) for entry in found] == [
            ("1", False),
            ("x/1", True),
            ("y/1", False),
        ]
        assert {entry.class_name for entry in found} == {"all"}

    def test_every_format_pairs_with_any_other(self):
        found = find(
            "pairs",
            *(f"images/{n}" for n in ("a.png", "b.JPG", "c.tiff", "d.dcm", "e.DICOM")),
            *(f"masks/{n}.tif" for n in "abcde"),
        )
        assert len(found) == 5
        assert all(entry.is_complete for entry in found)

    def test_the_folder_above_is_the_class(self):
        found = find("pairs", "set/TB/images/1.png", "set/TB/masks/1.png")
        assert [(e.class_name, e.pair_id) for e in found] == [("TB", "TB-1")]

    def test_a_table_names_group_and_class(self):
        table = "\ufeffimage,mask,group,class_name\nscans/a.png,m/a_seg.png,p1,TB\n\n"
        found = find(
            "pairs",
            "scans/a.png",
            "m/a_seg.png",
            "images/ignored.png",
            "masks/ignored.png",
            pairs__csv=table.encode(),
        )
        assert found == [
            Pair(
                pair_id="scans/a",
                class_name="TB",
                image_path="scans/a.png",
                mask_path="m/a_seg.png",
                group="p1",
            )
        ]

    def test_a_table_may_leave_out_a_side_or_name_what_is_not_there(self):
        table = "mask,image\n,a.png\nb.png,\ngone.png,c.png\nd.png,../d.png\n"
        found = find(
            "pairs", "a.png", "b.png", "c.png", "d.png", pairs__csv=table.encode()
        )
        assert {(e.image_path, e.mask_path) for e in found} == {
            ("a.png", ""),
            ("", "b.png"),
            ("c.png", "gone.png"),
            ("../d.png", "d.png"),
        }

    @pytest.mark.parametrize(
        ("table", "sentence"),
        [
            (b"", "has 0 rows and the columns none"),
            (b"image,mask,age\na.png,b.png,4\n", "columns 'image', 'mask', 'age'"),
            (b"image,mask\na.png,b.png,c.png\n", "3 cells in row 2 but 2 columns"),
            (b"image,mask\n , \n", "neither an image nor a mask in row 2"),
            (b"image,mask\nx.png,b.png\n", "names no image that exists"),
            (b"\xff\xfe\x00", "should be a table in UTF-8"),
        ],
    )
    def test_a_bad_table_is_one_sentence(self, table, sentence):
        with pytest.raises(PipelineError, match=sentence):
            find("pairs", "a.png", "b.png", pairs__csv=table)
