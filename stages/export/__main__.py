"""`python -m stages.export`."""

from stages.core import errors
from stages.core.nn.training import configure_runtime
from stages.core.params import load_params
from stages.export import export


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    params = load_params()
    configure_runtime(params.train.threads)
    export(params.export, train=params.train, threshold=params.evaluate.threshold)


if __name__ == "__main__":
    errors.run(main)
