"""Archives without clocks or addresses: equal models become equal bytes.

Knows no framework: it rewrites what a framework wrote, and the tests load the
result in the official runtime.
"""

import hashlib
import json
import re
import uuid
import zipfile
from pathlib import Path
from typing import Any

# What Keras writes where a file has no date of its own; zip's own epoch.
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

    Keras writes the date it was saved, the members' times, and `shared_object_id`s
    that are addresses; ids are numbered by first appearance instead. Defaults that
    older versions of Keras do not know are left out.
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

    A converter names values and open sizes by counters and lists nodes in an order
    that hangs on hashes of strings and on memory addresses. Nodes are ordered by
    walking up from the outputs and named by their kind and place, open sizes (such as
    the batch) by first appearance; the names of inputs and outputs stay.

    Raises:
        ValueError: If a node holds a graph of its own (a loop or a branch).
    """
    graph = model.graph
    for node in graph.node:
        if any(attribute.g.node or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"{node.op_type} {node.name} holds a graph: not supported")
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
    _name_open_sizes([*graph.input, *graph.output])
    graph.name = "unet"


def _name_open_sizes(values: list[Any]) -> None:
    """Equal names of sizes stay equal, others stay other."""
    names: dict[str, str] = {}
    for value in values:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                name = names.setdefault(size.dim_param, f"size_{len(names)}")
                size.dim_param = name


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


# TensorFlow ends a function's name with a number that counts all it ever made.
_COUNTED = re.compile(r"(.*_)(\d+)")
_SAID = "_user_specified_name"
# A loop's unused argument is called after the loop's function.
_UNUSED = re.compile(r"(.*_\d+)(___redundant_placeholder\d+)")


def saved_model(folder: Path, *, graph: Any, fingerprint: Any) -> None:
    """Rewrites a SavedModel in place: functions numbered from 0, no random id.

    Args:
        folder: What `tf.saved_model.save` wrote.
        graph: An empty `SavedModel` message of TensorFlow's.
        fingerprint: An empty `FingerprintDef` message.
    """
    graph.ParseFromString((folder / "saved_model.pb").read_bytes())
    meta_graph = graph.meta_graphs[0]
    library = meta_graph.graph_def.library
    names = _numbered_from_0([f.signature.name for f in library.function])
    _rename(graph, names)
    functions = sorted(library.function, key=lambda f: str(f.signature.name))
    copies = [type(f).FromString(f.SerializeToString()) for f in functions]
    library.ClearField("function")
    library.function.extend(copies)
    content = graph.SerializeToString(deterministic=True)
    (folder / "saved_model.pb").write_bytes(content)

    # The loader only logs it; what is random in it becomes a hash of the graph.
    fingerprint.ParseFromString((folder / "fingerprint.pb").read_bytes())
    digest = hashlib.sha256(content).digest()
    fingerprint.uuid = str(uuid.UUID(bytes=digest[:16]).int)
    for field, start in (
        ("saved_model_checksum", 0),
        ("graph_def_program_hash", 8),
        ("signature_def_hash", 16),
        ("saved_object_graph_hash", 24),
    ):
        value = int.from_bytes(digest[start : start + 8], "little")
        setattr(fingerprint, field, value)
    (folder / "fingerprint.pb").write_bytes(
        fingerprint.SerializeToString(deterministic=True)
    )
    # Git and DVC know no empty folders.
    for child in folder.iterdir():
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()


def _numbered_from_0(names: list[str]) -> dict[str, str]:
    """Counted names to the same names counted each from 0, in the order they had."""
    by_stem: dict[str, list[int]] = {}
    for name in names:
        if match := _COUNTED.fullmatch(name):
            by_stem.setdefault(match[1], []).append(int(match[2]))
    return {
        f"{stem}{number}": f"{stem}{place}"
        for stem, numbers in by_stem.items()
        for place, number in enumerate(sorted(numbers))
    }


def _renamed(text: str, names: dict[str, str]) -> str:
    if match := _UNUSED.fullmatch(text):
        for old, new in names.items():
            if match[1].endswith(f"_{old}"):
                return match[1].removesuffix(old) + new + match[2]
    return names.get(text, text)


def _rename(message: Any, names: dict[str, str]) -> None:
    """Replaces whole strings and map keys in a message and all that is in it.

    What a user called an input stays; where nobody did, TensorFlow wrote a count.
    """
    if message.DESCRIPTOR.name == "FunctionDef":
        for argument in message.arg_attr.values():
            if _SAID in argument.attr and argument.attr[_SAID].s.isdigit():
                del argument.attr[_SAID]
    for field, value in message.ListFields():
        is_map = (
            field.message_type is not None and field.message_type.GetOptions().map_entry
        )
        if is_map:
            _rename_map(value, field.message_type, names)
        elif field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                _rename(item, names)
        elif field.type == field.TYPE_STRING:
            if field.is_repeated:
                value[:] = [_renamed(item, names) for item in value]
            else:
                setattr(message, field.name, _renamed(value, names))


def _rename_map(value: Any, entry: Any, names: dict[str, str]) -> None:
    kind = entry.fields_by_name["value"]
    holds_messages = kind.message_type is not None
    holds_strings = kind.type == kind.TYPE_STRING
    for key in list(value):
        if holds_messages:
            _rename(value[key], names)
        elif holds_strings:
            value[key] = _renamed(value[key], names)
        if key in names:
            if holds_messages:
                value[names[key]].CopyFrom(value[key])
            else:
                value[names[key]] = value[key]
            del value[key]


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
