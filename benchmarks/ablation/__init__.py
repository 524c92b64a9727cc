"""Does a loss at several levels help? `python -m benchmarks.ablation [DATA]`.

Trains the same small network with no supervision below the finest level, with 2 levels
and with 3, each with three seeds and with both momenta of batch norm; says what differs
by more than chance, and draws Dice and gradients against steps.
"""

from benchmarks.ablation.findings import Findings, find
from benchmarks.ablation.grid import Arm, planned
from benchmarks.ablation.report import sentences, write

__all__ = ["Arm", "Findings", "find", "planned", "sentences", "write"]
