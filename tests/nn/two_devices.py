"""One device against two in one process, as JSON; a script, since TensorFlow splits a
processor into logical devices only before its first work.
"""

import json
import sys
from itertools import islice

import numpy as np
import tensorflow as tf

from stages.core.params import TrainParams
from stages.nn import dataset
from stages.nn.cluster import LEAST_PART, Cluster, connect
from stages.nn.gradients import GradientProbe
from stages.nn.runtime import configure_runtime, seed_everything
from stages.nn.trainer import Trainer, finite_together
from tests.conftest import lungs

STEPS = 20


def pictures(count: int) -> dataset.Arrays:
    """Phantoms at the network's size."""
    drawn = [lungs(seed, image_size=32, mask_size=32) for seed in range(count)]
    images, masks = (
        np.stack([p[..., None] for p in k]) for k in zip(*drawn, strict=True)
    )
    return dataset.Arrays(images, masks)


def is_idle(name: str) -> bool:
    """Whether a weight of `unet` moves by rounding alone.

    A bias in front of a batch norm has no effect and a gradient of nothing but
    rounding, which Adam brings to the size of a step; the running mean, which holds
    that bias too, moves with it, and nothing else does.
    """
    return name.endswith(("_conv_2/bias", "_norm/moving_mean"))


def trained(params: TrainParams, cluster: Cluster) -> dict:
    """Results of a training: weights by their path, scores, the probe's rows."""
    seed_everything(1)
    arrays = pictures(10)
    trainer = Trainer(params, cluster.strategy)
    share = cluster.share(params.batch_size)
    batches = dataset.batches(arrays, params, range(STEPS), share)
    for batch in islice(batches, STEPS):
        trainer.train_step(batch, params.learning_rate)
    trainer.set_state(trainer.state())
    probe = GradientProbe(trainer, arrays.images[:3], arrays.masks[:3])
    names = [v.path for v in trainer.model.weights]
    return {
        "weights": dict(zip(names, trainer.weights(), strict=True)),
        "scores": trainer.evaluate(arrays.images[:5], arrays.masks[:5]),
        "norms": [row[2] for row in probe.norms()],
    }


def overflow(cluster: Cluster) -> list:
    """Gradients of both devices after `finite_together`; finite on the first alone."""

    def together() -> list:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return finite_together([1 / (1 - tf.cast(replica, tf.float32)), tf.ones(2)])

    run = tf.function(lambda: cluster.strategy.run(together))
    each = [cluster.strategy.experimental_local_results(g) for g in run()]
    return [[bool(np.isfinite(v).all()) for v in values] for values in each]


def main() -> None:
    """Reads params as JSON, writes differences as JSON."""
    params = TrainParams.model_validate_json(sys.stdin.read())
    configure_runtime(2)
    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    pair = connect(2 * LEAST_PART)
    one = trained(params, Cluster(tf.distribute.get_strategy()))
    two = trained(params, pair)
    json.dump(
        {
            "facts": pair.facts(),
            "weights": {
                name: float(np.abs(value - two["weights"][name]).max())
                for name, value in one["weights"].items()
            },
            "scores": [one["scores"], two["scores"]],
            "norms": [one["norms"], two["norms"]],
            "overflow": overflow(pair),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
