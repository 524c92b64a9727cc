"""Are both sides free of each other's patients and copies, balanced and repeatable?"""

import json

import numpy as np
import pandas as pd
import pytest

from stages import split as stage
from stages.core import paths
from stages.core.errors import PipelineError
from stages.datasets.pairs import natural_key, read_splits
from stages.split import split


def hashes(count: int, seed: int = 0) -> list[str]:
    """Perceptual hashes of unrelated pictures: about 128 bits apart."""
    generator = np.random.default_rng(seed)
    return [generator.bytes(32).hex() for _ in range(count)]


def flipped(phash: str, bits: int) -> str:
    """The hash with its first bits inverted."""
    value = int(phash, 16) ^ (((1 << bits) - 1) << (256 - bits))
    return f"{value:064x}"


def quality(classes: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """Accepted pairs `CLASS-1` onwards, all different."""
    ids = [f"{name}-{i + 1}" for name, count in classes.items() for i in range(count)]
    return pd.DataFrame(
        {
            "pair_id": ids,
            "class_name": [i.rpartition("-")[0] for i in ids],
            "site": "",
            "group": "",
            "accepted": True,
            "image_sha256": [f"sha of {i}" for i in ids],
            "image_phash": hashes(len(ids), seed),
        }
    )


def write(table: pd.DataFrame) -> None:
    paths.QUALITY_PAIRS.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(paths.QUALITY_PAIRS)


@pytest.fixture
def sides(section):
    """Splits a quality table; the side of each pair, by id."""

    def split_table(table: pd.DataFrame, **overrides) -> pd.Series:
        write(table)
        split(section("split", **overrides))
        return read_splits().set_index("pair_id")["split"]

    return split_table


def summary() -> dict:
    return json.loads(paths.SPLIT_SUMMARY.read_text(encoding="utf-8"))


def put(table: pd.DataFrame, pair_id: str, **values) -> None:
    for column, value in values.items():
        table.loc[table["pair_id"] == pair_id, column] = value


def test_holds_out_about_the_fraction(sides):
    table = quality({"COVID": 600, "Normal": 400})
    found = sides(table, validation_fraction=0.2)
    assert sorted(found.index, key=natural_key) == list(found.index)
    assert set(found.index) == set(table["pair_id"])
    held_out = found == "validation"
    for name in ("COVID", "Normal"):
        assert 0.15 < held_out[held_out.index.str.startswith(name)].mean() < 0.25
    assert summary()["num_train"] + summary()["num_validation"] == 1000
    assert summary()["num_validation"] == held_out.sum()
    assert summary()["by_class"]["COVID"]["num_groups"] == 600


def test_table_has_the_columns_of_the_contract(sides):
    sides(quality({"COVID": 5}))
    lines = paths.SPLIT_PAIRS.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "pair_id,class_name,group,split"
    assert lines[1].startswith("COVID-1,COVID,COVID-1,")


def test_rejected_pairs_stay_out(sides):
    table = quality({"COVID": 10})
    put(table, "COVID-3", accepted=False, image_phash=None, image_sha256=None)
    assert "COVID-3" not in sides(table).index
    assert summary()["num_pairs"] == 9


def test_any_order_gives_the_same_bytes(sides):
    table = quality({"COVID": 12, "Normal": 9})
    put(table, "COVID-10", image_sha256="one")
    put(table, "COVID-2", image_sha256="one")
    put(table, "Normal-7", group="patient")
    put(table, "COVID-5", group="patient")
    sides(table)
    first = paths.SPLIT_PAIRS.read_bytes(), paths.SPLIT_SUMMARY.read_bytes()
    for seed in range(3):
        sides(table.sample(frac=1, random_state=seed))
        again = paths.SPLIT_PAIRS.read_bytes(), paths.SPLIT_SUMMARY.read_bytes()
        assert again == first


@pytest.mark.parametrize("seed", range(6))
def test_what_belongs_together_is_on_one_side(sides, seed):
    table = quality({"COVID": 12})
    phash = table.set_index("pair_id")["image_phash"]
    # An exact copy; a near copy of the copy; and a patient of all three's kin.
    put(table, "COVID-4", image_sha256="sha of COVID-10", image_phash=phash["COVID-10"])
    put(table, "COVID-7", image_phash=flipped(phash["COVID-10"], 24))
    put(table, "COVID-7", group="patient 1")
    put(table, "COVID-9", group="patient 1")
    # One bit more than the bound is another picture.
    put(table, "COVID-12", image_phash=flipped(phash["COVID-1"], 25))
    found = sides(table, near_duplicate_max_distance=24, seed=seed)
    assert found[["COVID-4", "COVID-7", "COVID-9", "COVID-10"]].nunique() == 1
    groups = read_splits().set_index("pair_id")["group"]
    for member in ("COVID-4", "COVID-7", "COVID-9", "COVID-10"):
        assert groups[member] == "COVID-4"  # the first in natural order
    assert groups["COVID-12"] == "COVID-12"
    assert summary()["num_groups"] == 9
    assert summary()["largest_group"] == 4
    assert summary()["num_exact_copies"] == 1
    assert summary()["exact_copies"] == [["COVID-4", "COVID-10"]]
    assert summary()["num_near_copy_pairs"] == 1
    assert summary()["near_copies"] == [{"bits": 24, "pairs": ["COVID-4", "COVID-7"]}]


@pytest.mark.parametrize(
    "mode",
    [{"validation_fraction": 0.2}, *({"folds": 3, "fold": fold} for fold in range(3))],
)
def test_what_is_held_out_stays_so_when_the_data_double(sides, mode):
    """New pairs come between the old ones, and some join two groups into one."""
    large = quality({"COVID": 160, "Normal": 60})
    phash = large.set_index("pair_id")["image_phash"]
    for number in range(2, 160, 8):
        # 40 bits apart, two old pictures are unrelated; the new one is near to both.
        for step, bits in ((1, 20), (2, 40)):
            copy = flipped(phash[f"COVID-{number}"], bits)
            put(large, f"COVID-{number + step}", image_phash=copy)
    for number in range(10, 40):  # ten patients with three films each
        put(large, f"Normal-{number}", group=f"patient {number % 10}")
    is_old = large["pair_id"].str.rpartition("-")[2].astype(int) % 2 == 0
    before = sides(large[is_old], **mode)
    groups = read_splits().set_index("pair_id")["group"]
    after = sides(large, **mode)[before.index]
    assert (after[before == "validation"] == "validation").all()
    joined = (
        groups.nunique()
        - read_splits().set_index("pair_id")["group"][before.index].nunique()
    )
    assert joined == 20
    # A new copy takes old training pairs to the held-out side; nothing else moves.
    moved = before.index[before != after]
    assert 0 < len(moved) < 40
    assert moved.str.startswith("COVID").all()


def test_each_pair_is_held_out_in_exactly_one_fold(sides):
    table = quality({"COVID": 23, "Normal": 17})
    put(table, "COVID-4", image_sha256="one")
    put(table, "COVID-9", image_sha256="one")
    put(table, "Normal-3", group="patient")
    put(table, "Normal-8", group="patient")
    folds = [sides(table, folds=5, fold=fold) for fold in range(5)]
    held_out = sum((found == "validation").astype(int) for found in folds)
    assert (held_out == 1).all()


@pytest.mark.parametrize(
    ("classes", "overrides", "expected"),
    [
        ({"A": 1}, {}, r"validation_fraction 0\.34 leaves no pair for .*bring more"),
        ({"A": 2}, {"validation_fraction": 1e-6}, "no pair for validation.*split.seed"),
        ({"A": 2}, {"validation_fraction": 0.999999}, "leaves no pair for train"),
        ({"A": 1}, {"folds": 9, "fold": 8}, "fold 8 of 9 leaves no pair.*fewer folds"),
    ],
)
def test_an_empty_side_is_one_sentence(sides, classes, overrides, expected):
    with pytest.raises(PipelineError, match=expected):
        sides(quality(classes), **overrides)
    assert not paths.SPLIT_PAIRS.exists()
    assert not paths.SPLIT_SUMMARY.exists()


def test_a_group_so_large_that_it_decides_the_split_is_named(sides, caplog):
    table = quality({"A": 20})
    table.loc[:13, "group"] = "ANONYMOUS"
    sides(table)
    assert "14 of 20 pairs form one group" in caplog.text
    assert "share one patient id" in caplog.text
    assert "of the pairs are held out instead of 34 %" in caplog.text
    table["group"] = "ANONYMOUS"
    with pytest.raises(
        PipelineError, match=r"20 accepted pairs form 1 group .*share one patient id"
    ):
        sides(table)


def test_missing_and_corrupt_tables_are_one_sentence(section):
    with pytest.raises(PipelineError, match=r"pairs\.parquet is missing; run"):
        split(section("split"))
    paths.QUALITY_PAIRS.parent.mkdir(parents=True)
    paths.QUALITY_PAIRS.write_bytes(b"PAR1 no such thing")
    with pytest.raises(PipelineError, match="should be the table that validate wrote"):
        split(section("split"))
    quality({"A": 3}).drop(columns="image_phash").to_parquet(paths.QUALITY_PAIRS)
    with pytest.raises(PipelineError, match="should be the table that validate wrote"):
        split(section("split"))
    write(quality({"A": 3}).assign(accepted=False))
    with pytest.raises(PipelineError, match="holds no accepted pair"):
        split(section("split"))


@pytest.mark.parametrize("bits", [0, 24, 64, 120])
def test_near_copies_are_all_found(monkeypatch, bits):
    monkeypatch.setattr(stage, "_PAIRS", 32)
    generator = np.random.default_rng(5)
    table = generator.integers(0, 2**64, (150, 4), np.uint64)
    for row in range(0, 150, 3):  # near copies at all distances, far and close by
        other = int(generator.integers(0, 150))
        noise = np.packbits(generator.random(256) < generator.random() * 0.3)
        table[row] = table[other] ^ noise.view(np.uint64)
    distance = np.bitwise_count(table[:, None] ^ table[None]).sum(2, dtype=int)
    expected = {
        (i, j, int(distance[i, j]))
        for i, j in zip(*np.nonzero(np.triu(distance <= bits, 1)), strict=True)
    }
    found = [
        triple
        for block in stage._near(table, bits)
        for triple in zip(*(part.tolist() for part in block), strict=True)
    ]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert expected or bits == 0


def test_thousands_of_near_copies_of_one_picture_are_counted_not_kept(sides):
    table = quality({"A": 10, "B": 1500})
    same = table["class_name"] == "B"
    table.loc[same, "image_phash"] = "0f" * 32
    sides(table)
    assert summary()["largest_group"] == 1500
    assert summary()["num_near_copy_pairs"] == 1500 * 1499 // 2
    listed = [entry["pairs"] for entry in summary()["near_copies"]]
    assert listed == [["B-1", f"B-{number}"] for number in range(2, 52)]


def given(classes: dict[str, int], marks: str) -> pd.DataFrame:
    """A quality table with the data set's own sides: t, v, x (test) or - (none)."""
    names = {"t": "train", "v": "validation", "x": "test", "-": ""}
    return quality(classes).assign(given_split=[names[mark] for mark in marks])


class TestGivenSides:
    @pytest.mark.parametrize(
        ("held_out", "expected"),
        [
            # The copy in the more sheltered place stays, also in a test side unused.
            ("validation", {"A-1": "train", "A-5": "validation"}),
            # Train and validation are both trained on: A-4 with A-5 gives nothing away.
            (
                "test",
                {"A-1": "train", "A-4": "train", "A-5": "train", "A-6": "validation"},
            ),
        ],
    )
    def test_copies_on_two_sides_are_left_out_of_the_less_sheltered(
        self, sides, caplog, held_out, expected
    ):
        # A-2 and A-3 (a patient) and A-6 are one group through an exact copy.
        table = given({"A": 6}, "ttvtvx")
        table.loc[1, "image_sha256"] = table.loc[5, "image_sha256"]
        table.loc[[1, 2], "group"] = "patient 1"
        table.loc[3, "image_phash"] = flipped(table.loc[4, "image_phash"], 3)
        found = sides(table, use_official_split=True, official_held_out=held_out)
        assert dict(found) == expected
        listed = [(row["pair_id"], row["side"]) for row in summary()["left_out"]]
        wanted = [("A-2", "train"), ("A-3", "validation"), ("A-4", "train")]
        assert listed == [pair for pair in wanted if pair[0] not in expected]
        assert summary()["num_left_out"] == len(listed)
        assert f"{len(listed)} pairs are left out" in caplog.text

    def test_a_pair_without_a_side_is_named(self, sides):
        with pytest.raises(PipelineError, match=r"1 of 3 accepted pairs .* 'A-2'; set"):
            sides(given({"A": 3}, "t-v"), use_official_split=True)
        assert not paths.SPLIT_PAIRS.exists()

    @pytest.mark.parametrize(("marks", "side"), [("xx", "train"), ("tx", "validation")])
    def test_an_empty_side_is_one_sentence(self, sides, marks, side):
        with pytest.raises(
            PipelineError, match=f"leaves no pair for {side}: .*another side"
        ):
            sides(given({"A": 2}, marks), use_official_split=True)

    def test_folds_are_refused(self, section):
        with pytest.raises(PipelineError, match="use_official_split needs folds 0"):
            section("split", use_official_split=True, folds=3)


class TestHeldOutSites:
    """Sites are the classes here: A and B are trained on, C is held out."""

    @pytest.fixture
    def table(self):
        table = quality({"A": 20, "B": 20, "C": 10})
        return table.assign(site=table["class_name"])

    def test_are_scored_whole_and_never_trained_on(self, sides, table):
        before = sides(table[table["site"] != "C"])
        found = sides(table, hold_out_sites=["C"])
        assert (found[found.index.str.startswith("C")] == "validation").all()
        pd.testing.assert_series_equal(found[before.index], before)
        assert read_splits().columns[-1] == "site"
        assert summary()["by_site"]["C"]["num_train"] == 0
        assert summary()["num_left_out"] == 0

    def test_their_copies_are_left_out_of_training(self, sides, table, caplog):
        table.loc[20:33, "group"] = "ANONYMOUS"  # so large a group is warned of
        before = sides(table[table["site"] != "C"])
        train, held_out = (before.index[before == side] for side in sorted(set(before)))
        hashes = table.set_index("pair_id")
        # Copies of pairs that would be trained on, and of one that is held out.
        put(table, "C-1", image_phash=flipped(hashes["image_phash"][train[0]], 9))
        put(table, "C-2", image_sha256=hashes["image_sha256"][train[1]])
        put(table, "C-3", image_sha256=hashes["image_sha256"][held_out[0]])
        found = sides(table, hold_out_sites=["C"])
        assert set(table["pair_id"]) - set(found.index) == set(train[:2])
        assert found[held_out[0]] == "validation"
        assert {row["pair_id"] for row in summary()["left_out"]} == set(train[:2])
        assert "2 pairs are left out" in caplog.text
        assert "14 of 38 pairs form one group" in caplog.text

    def test_go_with_an_official_split(self, sides, table):
        table["given_split"] = (["train"] * 15 + ["validation"] * 5) * 2 + [""] * 10
        sides(table, hold_out_sites=["C"], use_official_split=True)
        assert summary()["by_site"]["A"]["num_validation"] == 5
        assert summary()["by_site"]["C"]["num_validation"] == 10

    @pytest.mark.parametrize(
        ("names", "sentence"),
        [
            (
                ["../C"],
                r"names '../C', but the accepted pairs have 'A', 'B', 'C'; corr",
            ),
            (["A", "B", "C"], "names every site, so that none is left"),
        ],
    )
    def test_a_name_that_does_not_fit_is_one_sentence(
        self, sides, table, names, sentence
    ):
        with pytest.raises(PipelineError, match=sentence):
            sides(table, hold_out_sites=names)
        with pytest.raises(PipelineError, match="have no sites, which ingest"):
            sides(table.assign(site=""), hold_out_sites=names)
        assert not paths.SPLIT_PAIRS.exists()

    def test_one_site_under_two_names_is_one_sentence(self, sides, table):
        table.loc[20:38, "image_phash"] = table.loc[:18, "image_phash"].to_numpy()
        with pytest.raises(
            PipelineError, match="'A' and 'B' are one site under two names"
        ):
            sides(table)

    def test_copies_of_all_training_pairs_are_one_sentence(self, sides):
        table = quality({"B": 4, "C": 8})
        table["site"] = table["class_name"]
        table.loc[4:7, "image_phash"] = table.loc[:3, "image_phash"].to_numpy()
        with pytest.raises(
            PipelineError,
            match=r"no pair for train: .* left out as duplicates",
        ):
            sides(table, hold_out_sites=["C"])
