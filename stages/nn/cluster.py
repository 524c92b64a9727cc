"""The devices that TensorFlow sees, on one host or on many, as one strategy.

There is no param for it, since a laptop and a cluster share one `params.yaml`:
`CUDA_VISIBLE_DEVICES` says which GPUs of a host take part, and `TF_CONFIG`, as cluster
managers set it, which hosts train together. The environment cannot change the result
beyond the rounding of sums that are added in another order.
"""

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

# What a host's loss looks like to the others: its connection breaks, its heartbeats
# stop (TensorFlow's coordination service waits 10 s for one), or a sum is aborted.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)
JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """Who trains together: this process and, if there are any, those on other hosts."""

    strategy: tf.distribute.Strategy
    num_hosts: int = 1
    host: int = 0  # 0 is the chief, the only one that writes

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what comes of the training."""
        return self.host == 0

    @property
    def num_replicas(self) -> int:
        """Devices in all, each with a copy of the network."""
        return int(self.strategy.num_replicas_in_sync)

    def share(self, batch_size: int) -> slice:
        """The places of a global batch that are this host's.

        Raises:
            PipelineError: If the batch cannot be cut into equal shares.
        """
        if batch_size % self.num_replicas:
            raise PipelineError(
                f"train.batch_size {batch_size} should be a multiple of the "
                f"{self.num_replicas} devices that share it; change it, or the number "
                "of devices (CUDA_VISIBLE_DEVICES, TF_CONFIG)"
            )
        size = batch_size // self.num_hosts
        return slice(self.host * size, (self.host + 1) * size)

    def gather(self, number: int = 0) -> list[int]:
        """Every host's number, the chief's first; waits until all have come here."""
        if self.num_hosts == 1:
            return [number]
        everyones = tf.function(
            lambda: self.strategy.gather(
                self.strategy.run(lambda: tf.constant([number], tf.int64)), axis=0
            )
        )
        every = everyones().numpy()  # one a replica
        return [int(n) for n in every[:: self.num_replicas // self.num_hosts]]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Says in one sentence that another host was lost.

        Raises:
            PipelineError: If it was.
        """
        try:
            yield
        except LOST as error:
            if self.num_hosts == 1:
                raise
            logger.debug("host %d: %s", self.host, error)
            raise PipelineError(
                f"train: one of the {self.num_hosts} hosts stopped answering, and its "
                "own log says why; start all of them again, training goes on after the "
                "last finished epoch"
            ) from None

    def facts(self) -> dict[str, Any]:
        """What is used, without names or addresses of hosts."""
        names = [d.name for d in tf.config.list_logical_devices()]
        if self.num_hosts > 1:  # each sees all, its own first
            strategy = "MultiWorkerMirroredStrategy"
        elif self.num_replicas > 1:
            strategy = "MirroredStrategy"
        else:
            strategy = "one device"
        return {
            "strategy": strategy,
            "hosts": self.num_hosts,
            "replicas": self.num_replicas,
            "devices": sorted(names),
        }


@cache  # TensorFlow is one a process, and its cluster cannot be joined twice
def connect() -> Cluster:
    """Joins the cluster that `TF_CONFIG` names, or takes the devices of this host.

    With other hosts it must come before any work of TensorFlow's; it returns when all
    of them are there.

    Raises:
        PipelineError: If `TF_CONFIG` is wrong, or the others do not come.
    """
    # It tells of every sum over devices that it lays into a graph.
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
        cluster = Cluster(strategy, num_hosts, host)
    else:
        listed = tf.config.list_logical_devices
        devices = [d.name for d in listed("GPU") or listed("CPU")]
        cluster = Cluster(
            tf.distribute.MirroredStrategy(devices)
            if len(devices) > 1
            else tf.distribute.get_strategy()
        )
    facts = cluster.facts()
    logger.info(
        "%s; replicas: %d, hosts: %d (%s)",
        facts["strategy"],
        facts["replicas"],
        facts["hosts"],
        ", ".join(facts["devices"]),
    )
    return cluster


def hosts(text: str) -> tuple[int, int]:
    """How many hosts a `TF_CONFIG` names, and which of them this one is, from 0.

    Args:
        text: `{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker",
            "index": 0}}`; a `chief` may stand beside the workers. None: one host.

    Raises:
        PipelineError: If it is anything else.
    """
    if not text.strip():
        return 1, 0
    try:
        value = json.loads(text)
        cluster, task = value.get("cluster") or {}, value.get("task") or {}
        sizes = {job: len(list(addresses)) for job, addresses in cluster.items()}
        job, index = task.get("type"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise PipelineError(
            'TF_CONFIG should be JSON such as {"cluster": {"worker": ["host1:2222", '
            '"host2:2222"]}, "task": {"type": "worker", "index": 0}}, '
            f"found {text[:80]!r}; set it so, or unset it"
        ) from None
    if sum(sizes.values()) <= 1:
        return 1, 0
    unknown = sorted(set(map(str, sizes)) - set(JOBS))
    if unknown or sizes.get("chief", 0) > 1:
        raise PipelineError(
            "TF_CONFIG should name hosts as worker, and at most one as chief, found "
            f"{', '.join(unknown) or 'several chiefs'}: every host trains, there are "
            "no parameter servers; set it so"
        )
    if job not in sizes or not 0 <= index < sizes[job]:
        raise PipelineError(
            f"TF_CONFIG should say which of its hosts this is, found the task type "
            f"{job!r} and index {index} for {sizes}; set both"
        )
    first = sizes.get("chief", 0) if job == "worker" else 0
    return sum(sizes.values()), first + index
