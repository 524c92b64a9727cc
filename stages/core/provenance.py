"""The origin of an exported file, stored inside the file itself.

One JSON text under one key: ONNX has metadata for it, LiteRT a named buffer, and a
SavedModel the folder `assets.extra`, which TensorFlow sets aside for it. There is no
commit in it, since a commit is not an input of the build: the same inputs give the same
bytes in any checkout; `stages.tools.provenance` finds the commits that match.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from stages.core import dvc_files, files, paths
from stages.core.errors import PipelineError

Facts = dict[str, Any]

KEY = "provenance"
BESIDE = Path("assets.extra") / "provenance.json"
# A model's inputs by the name under which their hashes are kept.
INPUTS = {
    "build": paths.BUILD,
    "data": paths.INGESTED_SUMMARY,
    "metrics": paths.METRICS,
    "model": paths.MODEL,
    "quality": paths.QUALITY_REPORT,
    "requirements": paths.LOCK,
    "split": paths.SPLIT_PAIRS,
    "split_summary": paths.SPLIT_SUMMARY,
    "verdict": paths.VERDICT,
}
# Stored facts of the data, without names of files, folders and classes.
DATA = (
    *("dataset", "licence", "mask_definition_id", "mask_definition"),
    *("num_pairs", "sha256", "source"),
)


def facts(
    *,
    data: Facts,
    inputs: dict[str, Path],
    params: Facts,
    quality: Facts | None = None,
    sites: Collection[str] = (),
) -> Facts:
    """Collects what a file carries.

    Args:
        data: The summary of ingest.
        inputs: Files under the names of `INPUTS`.
        params: Sections of `params.yaml`.
        quality: The report of validate, for the ranges of the data.
        sites: Those that were trained on; none where the data have no sites.

    Raises:
        PipelineError: If an input is missing.
    """
    quality = quality or {}
    parts = [quality["by_site"][name] for name in sites] or [quality]
    found = [part.get("accepted_statistics", {}) for part in parts]
    usual = {
        key: [min(s[key]["min"] for s in found), max(s[key]["max"] for s in found)]
        for key in found[0]
    }
    return {
        "data": {name: data.get(name) for name in (*DATA, "version")}
        | {"usual": usual},
        "inputs": {name: of_file(path) for name, path in inputs.items()},
        "params": params,
    }


def text(facts: Facts) -> str:
    """The facts as JSON, sorted, so that equal facts are equal text."""
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)


def of_file(path: Path) -> dict[str, str]:
    """Hashes of one file: `sha256` for people and `md5` as `dvc.lock` records it."""
    if not path.is_file():
        raise PipelineError(
            f"{path} is missing; run `dvc repro` (or `dvc pull`) to make it"
        )
    return {"md5": dvc_files.md5(path), "sha256": files.sha256(path)}


def into_onnx(model: Any, facts: Facts) -> None:
    """Adds the facts to an `onnx.ModelProto`."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text(facts)


def into_litert(content: bytes, facts: Facts) -> bytes:
    """Adds the facts to a `.tflite` file's bytes."""
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text(facts).encode(), np.uint8)
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + len(buffer.data) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_beside(folder: Path, facts: Facts) -> None:
    """Lays the facts into a SavedModel's folder."""
    (folder / BESIDE).parent.mkdir(exist_ok=True)
    (folder / BESIDE).write_text(text(facts) + "\n", encoding="utf-8", newline="\n")


def read(path: Path) -> Facts:
    """Reads the facts back from `*.onnx`, `*.tflite` or a SavedModel's folder.

    Raises:
        PipelineError: If it is missing, of another kind, corrupt or without facts.
    """
    if not path.exists():
        raise PipelineError(
            f"{path} is missing; run `dvc repro` (or `dvc pull`) to make it"
        )
    readers = {".onnx": _from_onnx, ".tflite": _from_litert}
    reader = _from_folder if path.is_dir() else readers.get(path.suffix)
    if reader is None:
        raise PipelineError(
            f"{path} should be a .onnx file, a .tflite file or a SavedModel's folder"
        )
    try:
        found = reader(path)
        facts = None if found is None else json.loads(found)
    except PipelineError:
        raise
    except OSError as error:
        raise PipelineError(f"{path} cannot be read ({error.strerror})") from None
    except Exception as error:  # a parser of foreign bytes raises what it likes
        reason = " ".join(str(error).split())[:160]
        raise PipelineError(
            f"{path} should be an exported model but cannot be parsed ({reason}); "
            "remove it and run `dvc repro export`"
        ) from None
    if not isinstance(facts, dict) or not _are_inputs(facts.get("inputs")):
        raise PipelineError(
            f"{path} carries no provenance: it was not exported by this pipeline"
        )
    return facts


def _are_inputs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())


def _from_onnx(path: Path) -> str | None:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return next((p.value for p in model.metadata_props if p.key == KEY), None)


def _from_litert(path: Path) -> str | None:
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError("the file identifier TFL3 is missing")
    model = schema.Model.GetRootAs(content, 0)
    # A foreign file may claim billions.
    for index in range(min(model.MetadataLength(), 1000)):
        entry = model.Metadata(index)
        if entry.Name() == KEY.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode()
    return None


def _from_folder(path: Path) -> str | None:
    if not (path / "saved_model.pb").is_file():
        raise PipelineError(f"{path} should be a SavedModel but has no saved_model.pb")
    beside = path / BESIDE
    return beside.read_text(encoding="utf-8") if beside.is_file() else None
