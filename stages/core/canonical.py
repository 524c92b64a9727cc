"""Archives without clocks or addresses: equal models become equal bytes.

Knows no framework: it rewrites what a framework wrote, and the tests load the
result in the official runtime.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

# What Keras writes where a file has no date of its own; zip's own epoch.
EPOCH = (1980, 1, 1, 0, 0, 0)
DATE_SAVED = "1980-01-01@00:00:00"


def keras_archive(path: Path) -> None:
    """Rewrites a `.keras` file in place: no date, no zip times, no memory addresses.

    Keras writes the date it was saved, the members' times, and `shared_object_id`s
    that are addresses; ids are numbered by first appearance instead.
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


def _renumbered(value: Any, ids: dict[int, int]) -> Any:
    if isinstance(value, dict):
        return {
            key: ids.setdefault(item, len(ids))
            if key == "shared_object_id"
            else _renumbered(item, ids)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renumbered(item, ids) for item in value]
    return value


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
