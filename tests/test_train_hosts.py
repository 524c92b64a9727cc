"""Two workers over loopback: one is killed, both start again, and all is as alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest

from stages.core import paths
from stages.core.params import parse_params
from stages.train import train
from tests.conftest import ROOT, with_overrides
from tests.nn.two_devices import is_idle
from tests.test_train import make_data

# 24 pairs, 4 of them monitored, 4 a batch, 4 epochs: 20 steps at the article's rate.
OVERRIDES = {
    "train.filters": [4, 8],
    "train.learning_rate": 1e-4,
    "train.epochs": 4,
    "train.supervision_weights": [1.0],
    "train.monitor_fraction": 0.17,
}
# A chief that saves each epoch, however short.
CHIEF = """
import stages.train
from stages.core.errors import run
from stages.nn.checkpoint import Checkpoint

Checkpoint.is_due = lambda self: True
run(stages.train.main)
"""
# A worker that may not write, and is killed at the third epoch's second step.
WORKER = """
import os, signal, sys
import stages.train
from stages.core import files
from stages.nn.trainer import Trainer
from stages.core.errors import run

def refuse(path):
    raise AssertionError(f"a worker writes {path}")

def step_or_die(self, *arguments):
    global steps
    steps += 1
    if steps == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

files.replacing = files.remove = refuse
steps, step = 0, Trainer.train_step
Trainer.train_step = step_or_die
run(stages.train.main)
"""


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


@pytest.fixture
def start():
    """Starts chief and worker; ends what is left of them."""
    running = []

    def start_both(die_at):
        cluster = {"worker": free_addresses(2)}
        for index, command in enumerate((["-c", CHIEF], ["-c", WORKER, str(die_at)])):
            task = {"type": "worker", "index": index}
            environment = os.environ | {
                "PYTHONPATH": str(ROOT),
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
            }
            running.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return running[-2:]

    yield start_both
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.nightly
def test_a_killed_worker_ends_both_and_the_next_start_ends_as_one_process(
    start, tiny_values, tmp_path, monkeypatch
):
    make_data(num_train=24)
    values = with_overrides(tiny_values, OVERRIDES)
    paths.PARAMS.write_text(json.dumps(values))

    chief, worker = start(die_at=12)
    _, said = worker.communicate(timeout=300)
    assert worker.returncode == -signal.SIGKILL, said[-3000:]
    killed = time.monotonic()
    _, said = chief.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert chief.returncode == 1, said[-3000:]
    assert "error: train: one of the 2 hosts stopped answering" in said
    assert "Traceback" not in said
    assert not paths.MODEL.exists()
    assert (paths.CHECKPOINTS / "checkpoint.npz").exists()

    processes = start(die_at=0)
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
        assert "going on after epoch 2 of 4" in said
    assert not paths.CHECKPOINTS.exists()
    build = json.loads(paths.BUILD.read_text())
    assert (build["strategy"], build["hosts"], build["replicas"]) == (
        *("MultiWorkerMirroredStrategy", 2, 2),
    )
    assert "127.0.0.1" not in paths.BUILD.read_text()
    together = keras.models.load_model(paths.MODEL)
    curve = pd.read_csv(paths.HISTORY)

    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    make_data(num_train=24)
    train(parse_params(values).train)
    alone = keras.models.load_model(paths.MODEL)
    assert together.get_config() == alone.get_config()
    for a, b in zip(alone.weights, together.weights, strict=True):
        if not is_idle(a.path):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.path)
    pd.testing.assert_frame_equal(pd.read_csv(paths.HISTORY), curve, rtol=1e-3)
