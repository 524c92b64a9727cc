import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from stages.core.errors import PipelineError
from stages.nn import cluster
from tests.conftest import ROOT
from tests.nn.two_devices import is_idle

WORKERS = {"worker": ["a:1", "b:1"]}


def config(cluster=WORKERS, type="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": type, "index": index}})


class TestHosts:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "{}",
            config({"worker": ["a:1"]}),
            config({}, index=3),
            '{"task": {}}',
        ],
    )
    def test_no_cluster_or_one_host_is_one_host(self, text):
        assert cluster.hosts(text) == (1, 0)

    def test_workers_count_behind_the_chief(self):
        assert cluster.hosts(config(index=1)) == (2, 1)
        both = {"chief": ["c:1"], **WORKERS}
        assert cluster.hosts(config(both, "chief")) == (3, 0)
        assert cluster.hosts(config(both, "worker", 1)) == (3, 2)

    @pytest.mark.parametrize(
        "text",
        [
            *("{", "[]", '"x"', "[" * 9999),
            config(index="b"),
            config(index=2),
            config(type="chief"),
            config({"ps": ["p:1"], **WORKERS}),
            config({"chief": ["c:1", "d:1"], **WORKERS}),
        ],
    )
    def test_any_other_form_is_one_sentence(self, text):
        with pytest.raises(PipelineError, match="TF_CONFIG should be JSON such as"):
            cluster.hosts(text)


class Strategy:
    """A number of devices."""

    def __init__(self, count):
        self.num_replicas_in_sync = count


class TestShare:
    def test_hosts_cut_a_batch_into_equal_shares(self):
        shares = [
            cluster.Cluster(Strategy(4), num_hosts=2, host=host).share(8)
            for host in (0, 1)
        ]
        assert shares == [slice(0, 4), slice(4, 8)]

    def test_a_batch_that_does_not_divide_is_one_sentence(self):
        with pytest.raises(PipelineError, match="batch_size 6 should be a multiple of"):
            cluster.Cluster(Strategy(4), num_hosts=2).share(6)


@pytest.mark.parametrize(
    ("devices", "batch_size", "taken"),
    [(1, 4, 1), (8, 8, 1), (8, 64, 8), (3, 16, 2), (7, 48, 6), (5, 64, 4)],
)
def test_devices_get_equal_parts_of_eight_images_or_more(devices, batch_size, taken):
    assert cluster.num_equal_shares(devices, batch_size) == taken


def test_a_lost_host_is_one_sentence_and_alone_it_stays_an_error():
    def lose(num_hosts):
        with cluster.Cluster(Strategy(2), num_hosts).watched():
            raise tf.errors.UnavailableError(None, None, "10.0.0.1 is gone")

    with pytest.raises(PipelineError, match="one of the 2 hosts stopped answering"):
        lose(2)
    with pytest.raises(tf.errors.UnavailableError):
        lose(1)


class TestTwoDevices:
    @pytest.fixture(scope="class")
    def found(self, shipped_values):
        # The article's network and rate, narrow.
        params = shipped_values["train"] | {
            "image_size": 32,
            "filters": [4, 8],
            "supervision_weights": [1.0],
            "learning_rate": 1e-4,
            "batch_size": 4,
            "ema_momentum": 0.5,
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.nn.two_devices"],
            input=json.dumps(params),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    def test_they_are_used_and_told_of(self, found):
        assert found["facts"] == {
            "devices": ["/device:CPU:0", "/device:CPU:1"],
            "hosts": 1,
            "replicas": 2,
            "strategy": "MirroredStrategy",
        }

    def test_twenty_steps_end_in_one_devices_weights(self, found):
        moved = {k: v for k, v in found["weights"].items() if not is_idle(k)}
        assert len(moved) == len(found["weights"]) - 6
        assert max(moved.values()) < 1e-5

    def test_scores_and_probe_are_one_devices(self, found):
        (loss, dice), (alone, its_dice) = found["scores"]
        assert loss == pytest.approx(alone, abs=1e-4)
        # Counted in pixels: of 32 x 32 one or two may lie at the threshold itself.
        assert dice == pytest.approx(its_dice, abs=1e-3)
        np.testing.assert_allclose(*found["norms"], rtol=1e-3, atol=1e-6)

    def test_an_overflow_on_one_device_is_one_on_all(self, found):
        assert found["overflow"] == [[False, False], [False, False]]
