import time

import numpy as np
import pytest

from stages.nn.checkpoint import Checkpoint, fingerprint

ARRAYS = {"state": [np.arange(3.0), np.eye(2)], "weights": []}


@pytest.fixture
def saved(tmp_path):
    checkpoint = Checkpoint(tmp_path, "same")
    checkpoint.save(ARRAYS, {"epoch": 3, "loss": 0.1 + 0.2})
    return checkpoint


@pytest.mark.parametrize("place", [0, 40, 200, -30])
def test_a_flipped_byte_or_a_cut_is_not_loaded(saved, tmp_path, place):
    path = tmp_path / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    if (loaded := saved.load()) is not None:  # the zip format does not need this byte
        for a, b in zip(loaded[0]["state"], ARRAYS["state"], strict=True):
            assert np.array_equal(a, b)
    path.write_bytes(content[: len(content) // 2])
    assert saved.load() is None


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path, "same")
    assert checkpoint.is_due()
    now[0] = 2.0
    checkpoint.save(ARRAYS, {})  # took 2 s, so the next one is due after 100
    now[0] = 101.0
    assert not checkpoint.is_due()
    now[0] = 102.0
    assert checkpoint.is_due()


def test_a_fingerprint_sees_every_part_and_where_it_ends():
    assert fingerprint(b"a", b"b") == fingerprint(b"a", b"b")
    assert fingerprint(b"ab", b"") != fingerprint(b"a", b"b")
    assert fingerprint(np.zeros(2)) != fingerprint(np.ones(2))
