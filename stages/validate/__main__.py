"""`python -m stages.validate`."""

from stages.core import errors, input_check
from stages.core.params import load_params
from stages.validate import validate


def main() -> None:
    """Runs the stage with its section of `params.yaml`."""
    input_check.by_dvc()
    validate(load_params().validate_)


if __name__ == "__main__":
    errors.run(main)
