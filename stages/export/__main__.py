"""`python -m stages.export`."""

import tensorflow as tf

from stages.core import errors, input_check
from stages.core.params import load_params
from stages.export import export
from stages.nn.runtime import configure_runtime


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    input_check.by_dvc()
    params = load_params()
    # A GPU rounds convolutions to TF32: the formats are compared on the processor.
    tf.config.set_visible_devices([], "GPU")
    configure_runtime(params.train.threads)
    export(params.export, train=params.train, evaluate=params.evaluate)


if __name__ == "__main__":
    errors.run(main)
