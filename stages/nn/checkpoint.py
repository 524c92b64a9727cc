"""The state of a training after its last finished epoch, in one file."""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import files

logger = logging.getLogger(__name__)

Arrays = dict[str, list[np.ndarray]]


class Checkpoint:
    """An archive of arrays and a JSON table, each with a CRC and none pickled.

    Its fingerprint binds it to the data, the params and the code that made it.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Keeps one file under `folder`."""
        self._path = folder / "checkpoint.npz"
        self.fingerprint = fingerprint

    def save(self, arrays: Arrays, table: dict[str, Any]) -> None:
        """Replaces the checkpoint.

        Args:
            arrays: Named lists of arrays.
            table: Values that JSON can hold; floats keep all their digits.
        """
        flat = {
            f"{name}/{index:05d}": value
            for name, values in arrays.items()
            for index, value in enumerate(values)
        }
        head = {"fingerprint": self.fingerprint, "table": table}
        flat["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        with files.replacing(self._path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **flat)

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The saved state, or None if there is none for this training."""
        try:
            content = io.BytesIO(self._path.read_bytes())
            with np.load(content, allow_pickle=False) as archive:
                head = json.loads(archive["head"].tobytes())
                if head["fingerprint"] != self.fingerprint:
                    logger.info("the checkpoint is of another training; starting over")
                    return None
                arrays: Arrays = {}
                for key in sorted(archive.files):
                    if "/" in key:
                        arrays.setdefault(key.split("/")[0], []).append(archive[key])
                return arrays, head["table"]
        except FileNotFoundError:
            return None
        except Exception as error:  # NumPy raises many kinds on corrupt bytes
            reason = " ".join(str(error).split())[:160]
            logger.warning(
                "%s is corrupt (%s); training starts over", self._path, reason
            )
            return None


def fingerprint(*parts: bytes | np.ndarray) -> str:
    """One hash of everything that a training depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else part)
        digest.update(b"\0")
    return digest.hexdigest()
