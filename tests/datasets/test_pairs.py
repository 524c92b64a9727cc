import pandas as pd
import pyarrow as pa
import pytest

from stages.core import files, paths
from stages.core.errors import PipelineError
from stages.datasets.pairs import (
    Pair,
    natural_key,
    num_rows,
    read_pairs,
    read_shard,
    read_splits,
    shard_paths,
    write_shards,
)


def pair(number, class_name="COVID", **values):
    name = f"{class_name}-{number}"
    return Pair(
        **{
            "pair_id": name,
            "class_name": class_name,
            "image_path": f"{name}.png",
            "mask_path": f"{name}.png",
            "image": bytes([number]),
            "mask": None,
        }
        | values
    )


def test_natural_order():
    names = ["a10", "a2", "a", "b1", "a2b", "a02"]
    assert sorted(names, key=natural_key) == ["a", "a02", "a2", "a2b", "a10", "b1"]


def test_shards_hold_one_class_and_come_back_unaltered(tmp_path):
    pairs = [pair(n) for n in range(1, 6)] + [pair(1, "Viral Pneumonia")]
    assert write_shards(pairs, tmp_path, shard_pairs=2) == 6
    assert [p.name for p in shard_paths(tmp_path)] == [
        "COVID-00000.parquet",
        "COVID-00001.parquet",
        "COVID-00002.parquet",
        "Viral Pneumonia-00000.parquet",
    ]
    assert [pair for p in shard_paths(tmp_path) for pair in read_shard(p)] == pairs


def test_shards_are_cut_by_bytes_too(tmp_path):
    def sizes(folder, lengths):
        pairs = (
            pair(n, image=bytes(length), mask=b"m") for n, length in enumerate(lengths)
        )
        write_shards(pairs, tmp_path / folder, shard_pairs=3, shard_bytes=20)
        return [
            [len(pair.image) for pair in read_shard(p)]
            for p in shard_paths(tmp_path / folder)
        ]

    # 9 + 1 and 9 + 1 are 20 bytes, just allowed; 50 are more, but not to be cut.
    assert sizes("a", [9, 9, 9, 50, 1, 2, 3, 4]) == [[9, 9], [9], [50], [1, 2, 3], [4]]
    # More pairs change the last shard alone.
    assert sizes("b", [9, 9, 9, 50, 1, 2, 3, 4, 9, 9])[:4] == sizes(
        "c", [9, 9, 9, 50, 1, 2, 3]
    )
    assert sizes("d", [9, 9, 9, 50, 1, 2, 3, 4, 9, 9])[4:] == [[4, 9], [9]]


def test_large_pairs_are_not_in_memory_all_at_once(tmp_path):
    pairs = (pair(n, image=bytes(4_000_000)) for n in range(40))
    write_shards(pairs, tmp_path, shard_pairs=512, shard_bytes=40_000_000)
    shards = shard_paths(tmp_path)
    assert [num_rows(shard) for shard in shards] == [10] * 4
    before = pa.total_allocated_bytes()
    for _ in read_shard(shards[0], batch_pairs=1):
        assert pa.total_allocated_bytes() - before < 15_000_000


def test_a_class_name_cannot_leave_the_folder(tmp_path):
    write_shards([pair(1, "../../evil")], tmp_path / "s", shard_pairs=2)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert len(shard_paths(tmp_path / "s")) == 1


def test_read_pairs_finds_some_and_names_a_missing_one(tmp_path):
    write_shards((pair(n) for n in range(5)), tmp_path, shard_pairs=2)
    found = [pair.pair_id for pair in read_pairs(["COVID-3", "COVID-0"], tmp_path)]
    assert found == ["COVID-0", "COVID-3"]
    with pytest.raises(PipelineError, match=r"lacks 1 pairs .* such as 'COVID-9'"):
        list(read_pairs(["COVID-9"], tmp_path))


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "text", "another table", "codec", "missing"]
)
def test_a_damaged_shard_is_one_sentence_that_names_it(tmp_path, damage):
    write_shards((pair(n) for n in range(3)), tmp_path, shard_pairs=9)
    path = shard_paths(tmp_path)[0]
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_bytes(b"no parquet at all")
        case "another table":
            pd.DataFrame({"a": [1]}).to_parquet(path)
        case "codec":
            # A column's metadata: the end of its path, then its codec as a Thrift enum.
            spoilt = content.replace(b"problem\x15\x00", b"problem\x15\x10")
            assert spoilt != content
            path.write_bytes(spoilt)
        case "missing":
            path.unlink()
    with pytest.raises(PipelineError, match=r"COVID-00000\.parquet") as caught:
        list(read_shard(path))
    assert "\n" not in str(caught.value)
    if damage != "another table":
        with pytest.raises(PipelineError, match=r"COVID-00000\.parquet"):
            num_rows(path)


def test_splits_are_checked():
    rows = [["a", "COVID", "a", "train"], ["NA", "COVID", "b", "validation"]]
    table = pd.DataFrame(rows, columns=list("abcd"))
    files.write_csv(paths.SPLIT_PAIRS, table)
    with pytest.raises(PipelineError, match="should have the columns pair_id"):
        read_splits()
    table.columns = ["pair_id", "class_name", "group", "split"]
    for wrong in (table.assign(split="test"), table[:1], table[1:]):
        files.write_csv(paths.SPLIT_PAIRS, wrong)
        with pytest.raises(PipelineError, match="splits train and validation"):
            read_splits()
    files.write_csv(paths.SPLIT_PAIRS, table)
    assert list(read_splits()["pair_id"]) == ["a", "NA"]  # not a missing value
    paths.SPLIT_PAIRS.unlink()
    with pytest.raises(PipelineError, match="run `dvc repro split`"):
        read_splits()
