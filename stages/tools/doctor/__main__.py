"""`python -m stages.tools.doctor [--online] [--gpu] [--cache]`."""

import argparse

from stages.core.errors import PipelineError, run
from stages.tools import doctor
from stages.tools.doctor.finding import BROKEN


def main() -> None:
    """Prints a line a check, and below it what to do."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.doctor",
        description=doctor.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--online", action="store_true", help="ask Kaggle")
    parser.add_argument("--gpu", action="store_true", help="ask TensorFlow")
    parser.add_argument("--cache", action="store_true", help="hash the DVC cache")
    broken = []
    for finding in doctor.examine(**vars(parser.parse_args())):
        print(f"{finding.state:<7} {finding.name:<12} {finding.found}", flush=True)
        if finding.to_do:
            print(f"{'':<21}-> {finding.to_do}", flush=True)
        if finding.state == BROKEN:
            broken.append(finding.name)
    if broken:
        raise PipelineError(
            f"{', '.join(broken)} should be mended first; the lines with -> say how"
        )


if __name__ == "__main__":
    run(main)
