"""Archives without clocks or addresses: equal models become equal bytes.

Knows no framework: it rewrites what a framework wrote, and the tests load the
result in the official runtime.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

# Instead of the date of saving: the first date that zip can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
DATE_SAVED = "1980-01-01@00:00:00"
# Settings that older Keras does not know, at the values that change nothing: without
# them, Keras 3.5 and newer load the file.
_NEWER = {
    "input_axes": None,
    "output_axes": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}


def keras_archive(path: Path) -> None:
    """Rewrites a `.keras` file in place: no date, no zip times, no memory addresses.

    `shared_object_id`s are addresses; they are numbered by first appearance instead.
    Defaults that older versions of Keras do not know are left out.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata = json.loads(members["metadata.json"])
    metadata["date_saved"] = DATE_SAVED
    members["metadata.json"] = _json(metadata)
    members["config.json"] = _json(_renumbered(json.loads(members["config.json"]), {}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)


def onnx_graph(model: Any) -> None:
    """Rewrites an `onnx.ModelProto`: names and order come from the graph alone.

    A converter names values by counters and lists nodes in an order that depends on
    hashes of strings and on memory addresses. Nodes are ordered by walking up from the
    outputs and named by their kind and place; inputs and outputs keep their names.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = _from_outputs([value.name for value in graph.output], makers)
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}_{place}"
        for index, name in enumerate(node.input):
            if name in constants:
                names.setdefault(name, f"{node.name}_input_{index}")
        for index, name in enumerate(node.output):
            names.setdefault(name, f"{node.name}_output_{index}" if name else "")
        node.doc_string = ""
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    kept = [constants[name] for name in names if name in constants]
    for tensor in kept:
        tensor.name = names[tensor.name]
    for field, values in (("node", nodes), ("initializer", kept)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    for field in ("value_info", "doc_string"):
        graph.ClearField(field)
    graph.name = "unet"


def _from_outputs(outputs: list[str], makers: dict[str, Any]) -> list[Any]:
    """Nodes so that each follows what it reads; the first input's side comes first."""
    ordered: list[Any] = []
    seen: set[str] = set()
    waiting = [(name, False) for name in reversed(outputs)]
    while waiting:
        name, is_ready = waiting.pop()
        node = makers.get(name)
        if node is None or (node.output[0] in seen and not is_ready):
            continue
        if is_ready:
            ordered.append(node)
            continue
        seen.add(node.output[0])
        waiting.append((name, True))
        waiting.extend((source, False) for source in reversed(node.input))
    return ordered


def saved_model(folder: Path) -> None:
    """Removes from a SavedModel what differs from one process to the next.

    The fingerprint holds a random id; loaders only log it. Git and DVC do not store
    empty folders.
    """
    (folder / "fingerprint.pb").unlink()
    for child in folder.iterdir():
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()


def _renumbered(value: Any, ids: dict[int, int]) -> Any:
    if isinstance(value, dict):
        return {
            key: ids.setdefault(item, len(ids))
            if key == "shared_object_id"
            else _renumbered(item, ids)
            for key, item in value.items()
            if key not in _NEWER or item != _NEWER[key]
        }
    if isinstance(value, list):
        return [_renumbered(item, ids) for item in value]
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
