"""LGG MRI segmentation: one folder per patient, slices beside their masks.

`kaggle_3m/TCGA_XX_NNNN_DATE/NAME_I.tif` has its mask in `NAME_I_mask.tif`. The
patient's folder is the group, so that a split never divides a patient. The published
archive repeats the whole tree inside itself; the repetition is skipped.
"""

from pathlib import PurePosixPath

from stages.datasets.layouts import About, File, id_in, images, match
from stages.datasets.masks import MaskDefinition
from stages.datasets.pairs import Pair
from stages.datasets.tree import Tree

ABOUT = About(
    dataset="LGG MRI segmentation",
    page="https://www.kaggle.com/datasets/mateuszbuda/lgg-mri-segmentation",
    licence="CC BY-NC-SA 4.0",
    citation=(
        "Buda et al., Association of genomic subtypes of lower-grade gliomas with "
        "shape features automatically extracted by a deep learning algorithm, "
        "Computers in Biology and Medicine 109, 2019"
    ),
    targets={
        "tumour": MaskDefinition(
            "flair-abnormality",
            "FLAIR abnormality: white (255) is tumour; most slices have none",
            may_be_empty=True,
        )
    },
    classes=frozenset({"LGG"}),
)
TREE = "kaggle_3m/PATIENT/NAME.tif with PATIENT/NAME_mask.tif"
CLASS_NAME = "LGG"
MASK_ENDING = "_mask"


def find(tree: Tree, _target: str, /) -> list[Pair]:
    """Pairs `NAME` with `NAME_mask` inside each patient's folder."""
    names = set(tree.names)
    files = (
        File(path, path.parent, path.stem[: -len(MASK_ENDING)], is_mask=True)
        if path.stem.lower().endswith(MASK_ENDING)
        else File(path, path.parent, path.stem, is_mask=False)
        for path in images(tree.names)
        if path.parent.name and not _is_repetition(path, names)
    )
    return match(
        files,
        lambda folder, key: {
            "pair_id": id_in(folder.name, key),
            "class_name": CLASS_NAME,
            "group": folder.name,
        },
    )


def _is_repetition(path: PurePosixPath, names: set[str]) -> bool:
    """Whether the same patient's file exists with fewer folders above it."""
    parts = path.parts
    # The last two parts are patient and slice; any of those above may be missing.
    return any("/".join(parts[i:]) in names for i in range(1, len(parts) - 1))
