import subprocess
import sys
import threading

import pytest

from stages.core import files, paths
from stages.core.errors import PipelineError
from tests.conftest import ROOT


@pytest.mark.parametrize("place", ["data/out", "elsewhere"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, place):
    target = tmp_path / place / "table.csv"
    files.write_text(target, "old")

    def write_half():
        with files.replacing(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["table.csv"]
    work = tmp_path / paths.WORK / "partial"
    assert work.is_dir() == (place == "data/out")
    assert not work.is_dir() or not list(work.iterdir())


def test_json_is_canonical_and_undefined_is_null(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": float("nan"), "a": 0.1 + 0.2})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 0.3,\n  "b": null\n}\n'


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_corrupt_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(PipelineError, match=r"a\.json should be JSON but is not"):
        files.read_json(tmp_path / "a.json")


def test_slug_is_one_to_one_and_stays_in_its_folder():
    names = ["Viral Pneumonia-7", "../x", "a/b", "a%2Fb", "é", "a.b", "..", "x\x00"]
    slugs = [paths.slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert slugs[0] == names[0]
    assert all("/" not in s and "." not in s and "\x00" not in s for s in slugs)


def test_who_writes_the_same_target_is_waited_for(tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from stages.core import files, paths\n"
        "with files.replacing(paths.INGESTED) as partial:\n"
        "    partial.mkdir()\n"
        "    (partial / 'a').write_text('whole')\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.read()\n"
        "    (partial / 'b').write_text('whole')\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"in\n"
    release = threading.Timer(0.3, first.stdin.close)
    release.start()
    with files.replacing(paths.INGESTED) as partial:
        found = sorted(p.name for p in paths.INGESTED.iterdir())
        partial.mkdir()
        (partial / "c").write_text("mine")
    assert found == ["a", "b"]
    assert first.wait() == 0
    assert [p.name for p in paths.INGESTED.iterdir()] == ["c"]
    assert not list((paths.WORK / "partial").iterdir())
