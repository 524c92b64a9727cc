"""The meaning of masks. Scores against masks of different meanings do not compare."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskDefinition:
    """The meaning of one kind of mask."""

    id: str  # stored with the data and the model; equal ids mean equal definitions
    text: str  # for people
    may_be_empty: bool = False  # whether an image may show none of it


# A definition that several data sets share stands here, any other beside its layout.
LUNG_WITHOUT_HEART = MaskDefinition(
    "lung-without-heart",
    "lung fields as they are seen: white (255) is lung; without the lung behind the "
    "heart and below the diaphragm",
)
