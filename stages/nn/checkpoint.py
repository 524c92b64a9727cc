"""The state of a training after one of its last epochs, in one file."""

import hashlib
import io
import json
import logging
import time
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

    share = 0.02  # of the time of a training that saving may take

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Keeps one file under `folder`."""
        self._path = folder / "checkpoint.npz"
        self.fingerprint = fingerprint
        self._asked_at = self._saved_at = time.monotonic()
        self._took_s = 0.0  # of the last save: at first, every epoch is due
        self.table: dict[str, Any] = {}  # the last one saved or loaded

    def is_due(self) -> bool:
        """Whether to save now, by how long that took the last time.

        Ask right before `save`, so that copies from a device count as well.
        """
        self._asked_at = time.monotonic()
        return self.share * (self._asked_at - self._saved_at) >= self._took_s

    def save(self, arrays: Arrays, table: dict[str, Any]) -> None:
        """Replaces the checkpoint; the table holds what JSON can."""
        flat = {
            f"{name}/{index:05d}": value
            for name, values in arrays.items()
            for index, value in enumerate(values)
        }
        head = {"fingerprint": self.fingerprint, "table": table}
        flat["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        with files.replacing(self._path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **flat)
        self._saved_at, self.table = time.monotonic(), table
        self._took_s = self._saved_at - self._asked_at

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
                self.table = head["table"]
                return arrays, self.table
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
