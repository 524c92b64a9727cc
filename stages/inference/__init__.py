"""From the pixels of a film to its mask, by an exported model."""

from stages.inference.segmenter import Segmentation, Segmenter

__all__ = ["Segmentation", "Segmenter"]
