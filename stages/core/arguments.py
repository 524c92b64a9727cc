"""Numbers of a command line, checked by argparse: `type=arguments.fraction`."""

import argparse


def fraction(text: str) -> float:
    """A threshold: above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"should be between 0 and 1, found {text}")
    return value


def positive(text: str) -> int:
    """A count that cannot be 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"should be at least 1, found {text}")
    return value
