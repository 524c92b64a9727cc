"""The devices that train together, on one host or on many, as one strategy.

The environment chooses them instead of a param, since a laptop and a cluster share one
`params.yaml`: `CUDA_VISIBLE_DEVICES` selects the GPUs of a host, and `TF_CONFIG`, as
cluster managers set it, the hosts. Results differ by the rounding of sums alone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import tensorflow as tf

from stages.core.errors import PipelineError

logger = logging.getLogger(__name__)

# Images per device: with fewer, a GPU waits for its next kernel most of the time.
LEAST_PART = 8

# Raised when another host is lost: its connection breaks, its heartbeats stop for 10 s,
# or a sum over hosts is aborted.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Cluster:
    """The hosts and devices of a training, seen from this process."""

    strategy: tf.distribute.Strategy
    num_hosts: int = 1
    host: int = 0  # 0 is the chief, which alone writes files

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.host == 0

    @property
    def num_replicas(self) -> int:
        """Devices on all hosts, each with a copy of the network."""
        return int(self.strategy.num_replicas_in_sync)

    def share(self, batch_size: int) -> slice:
        """The rows of a global batch that this host makes.

        Raises:
            PipelineError: If the batch cannot be divided equally.
        """
        if batch_size % self.num_replicas:
            raise PipelineError(
                f"train.batch_size {batch_size} should be a multiple of the "
                f"{self.num_replicas} devices that share it; change it, or the number "
                "of devices (CUDA_VISIBLE_DEVICES, TF_CONFIG)"
            )
        size = batch_size // self.num_hosts
        return slice(self.host * size, (self.host + 1) * size)

    def agree(self, text: str = "") -> None:
        """Waits until all hosts call it; raises PipelineError if their texts differ.

        The text describes everything that decides the training.
        """
        if self.num_hosts == 1:
            return
        mark = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
        gathered = tf.function(
            lambda: self.strategy.gather(
                self.strategy.run(lambda: tf.constant([mark], tf.int64)), axis=0
            )
        )
        if len(set(gathered().numpy())) > 1:
            raise PipelineError(
                f"train: all {self.num_hosts} hosts should have the same params, code, "
                "libraries, data and checkpoint, found different ones; have them share "
                "the chief's checkout, data/ included, and start all of them again"
            )

    @property
    def is_one_gpu(self) -> bool:
        """Whether a single GPU trains."""
        return self.num_replicas == 1 and bool(tf.config.list_logical_devices("GPU"))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turns the loss of another host into a PipelineError."""
        try:
            yield
        except LOST as error:
            if self.num_hosts == 1:
                raise
            logger.debug("host %d: %s", self.host, error)
            raise PipelineError(
                f"train: one of the {self.num_hosts} hosts stopped answering, and its "
                "own log says why; start all of them again, training goes on after the "
                "last saved epoch"
            ) from None

    def facts(self) -> dict[str, Any]:
        """Strategy and devices for `build.json`, without names of hosts."""
        names = [d.name for d in tf.config.list_logical_devices()]
        if self.num_hosts > 1:
            strategy = "MultiWorkerMirroredStrategy"
        elif self.num_replicas > 1:
            strategy = "MirroredStrategy"
        else:
            strategy = "one device"
        return {
            "strategy": strategy,
            "hosts": self.num_hosts,
            "replicas": self.num_replicas,
            "devices": sorted(names),  # TensorFlow lists a host's own first
        }


@cache  # a process can join a cluster once
def connect(batch_size: int) -> Cluster:
    """Joins the cluster that `TF_CONFIG` names, or takes `num_equal_shares` devices.

    With several hosts, call it before TensorFlow does any work; it returns when all of
    them are there.

    Raises:
        PipelineError: If `TF_CONFIG` is wrong, or the other hosts do not come.
    """
    # At INFO, TensorFlow logs every sum over devices that it adds to a graph.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    num_hosts, host = hosts(os.environ.get("TF_CONFIG", ""))
    if num_hosts > 1:
        logger.info("host %d of %d waits for the others", host, num_hosts)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise PipelineError(
                f"TF_CONFIG: host {host} of {num_hosts} could not join the others "
                f"({reason}); check the addresses, that nothing else uses its port, "
                "and start all of them within an hour"
            ) from None
    else:
        listed = tf.config.list_logical_devices
        devices = [d.name for d in listed("GPU") or listed("CPU")]
        seen = len(devices)
        devices = devices[: num_equal_shares(seen, batch_size)]
        if len(devices) < seen:
            logger.info(
                "%d of %d devices train: equal parts of train.batch_size %d are to "
                "have at least %d images; raise it to use more",
                *(len(devices), seen, batch_size, LEAST_PART),
            )
        strategy = (
            tf.distribute.MirroredStrategy(devices)
            if len(devices) > 1
            else tf.distribute.get_strategy()
        )
    cluster = Cluster(strategy, num_hosts, host)
    facts = cluster.facts()
    logger.info("%s: %s", facts["strategy"], ", ".join(facts["devices"]))
    return cluster


def num_equal_shares(most: int, batch_size: int) -> int:
    """The largest number of equal parts of a batch, each of `LEAST_PART` or more."""
    return max(
        count
        for count in range(1, most + 1)
        if count == 1 or (batch_size % count == 0 and batch_size // count >= LEAST_PART)
    )


def hosts(text: str) -> tuple[int, int]:
    """The number of hosts in a `TF_CONFIG`, and the place of this one among them.

    Args:
        text: `{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker",
            "index": 0}}`, where a `chief` may stand beside the workers; empty for one
            host.

    Raises:
        PipelineError: If it has another form.
    """
    try:
        value = json.loads(text.strip() or "{}")
        jobs, task = value.get("cluster", {}), value.get("task", {})
        places = [
            (job, index)
            for job in ("chief", "worker")
            for index in range(len(jobs.get(job, [])))
        ]
        if jobs.keys() - {"chief", "worker"} or ("chief", 1) in places:
            raise ValueError("a job other than worker and one chief")
        if len(places) <= 1:
            return 1, 0
        return len(places), places.index((task.get("type"), int(task.get("index", 0))))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise PipelineError(
            'TF_CONFIG should be JSON such as {"cluster": {"worker": ["host1:2222", '
            '"host2:2222"]}, "task": {"type": "worker", "index": 0}}, with at most one '
            "chief beside the workers, no parameter servers, and this host's own task, "
            f"found {text[:160]!r}; set it so, or unset it"
        ) from None
