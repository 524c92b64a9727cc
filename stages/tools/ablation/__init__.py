"""Does a loss at several levels help? `python -m stages.tools.ablation [DATA]`.

Trains the same small network with no supervision below the finest level, with 2 levels
and with 3, each with three seeds and with both momenta of batch norm; says what differs
by more than chance, and draws Dice and gradients against steps.
"""

from stages.tools.ablation.findings import Findings, find
from stages.tools.ablation.grid import Arm, planned
from stages.tools.ablation.report import sentences, write

__all__ = ["Arm", "Findings", "find", "planned", "sentences", "write"]
