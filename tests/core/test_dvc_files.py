"""Hashes as DVC itself counts them."""

import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from stages.core import dvc_files


def test_hashes_are_those_of_dvc(tmp_path):
    Path("folder/below").mkdir(parents=True)
    for name in ("folder/b", "folder/below/a", "folder/a b", "folder/é", "file"):
        Path(name).write_bytes(name.encode())

    def dvc(*words: str) -> None:
        done = [sys.executable, "-m", "dvc", *words]
        subprocess.run(done, check=True, capture_output=True)

    dvc("init", "--no-scm")
    dvc("add", "folder", "file")
    for name in ("folder", "file"):
        [out] = YAML(typ="safe").load(Path(f"{name}.dvc"))["outs"]
        assert out["md5"] == dvc_files.md5(Path(name))
        stored = dvc_files.stored(dvc_files.cache(), out["md5"])
        assert stored.is_file()
        assert dvc_files.name_of(stored) == out["md5"]
    [out] = YAML(typ="safe").load(Path("folder.dvc"))["outs"]
    listing = dvc_files.listing(dvc_files.stored(dvc_files.cache(), out["md5"]))
    assert listing == {
        path.relative_to("folder").as_posix(): dvc_files.md5(path)
        for path in Path("folder").rglob("*")
        if path.is_file()
    }
    assert dvc_files.md5_of_folder(listing) == out["md5"]
