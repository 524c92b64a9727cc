"""LGG MRI segmentation: a folder a patient, slices and their masks side by side.

`kaggle_3m/TCGA_XX_NNNN_DATE/NAME_I.tif` has its mask in `NAME_I_mask.tif`. The
patient's folder is the group, so that no patient is on both sides of a split. The
published archive repeats the whole tree inside itself; the repetition is left out.
"""

from pathlib import PurePosixPath

from stages.datasets.layouts import About, Entry, Target, Tree, images, match, told_by

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
        "tumour": Target(
            "FLAIR abnormality: white (255) is tumour; most slices have none",
            may_be_absent=True,
        )
    },
)
TREE = "kaggle_3m/PATIENT/NAME.tif with PATIENT/NAME_mask.tif"
CLASS_NAME = "LGG"
MASK_ENDING = "_mask"


def find(tree: Tree, _target: str = "", /) -> list[Entry]:
    """Pairs `NAME` with `NAME_mask` inside each patient's folder."""
    names = set(tree.names)
    patients: dict[
        PurePosixPath,
        tuple[list[tuple[str, str]], list[tuple[str, str]]],
    ] = {}
    for path in images(tree.names):
        if not path.parent.name or _is_repetition(path, names):
            continue
        slices, masks = patients.setdefault(path.parent, ([], []))
        if path.stem.lower().endswith(MASK_ENDING):
            masks.append((path.stem[: -len(MASK_ENDING)], str(path)))
        else:
            slices.append((path.stem, str(path)))
    return [
        Entry(
            pair_id=told_by(folder.name, stem),
            class_name=CLASS_NAME,
            image_path=image_path,
            mask_path=mask_path,
            group=folder.name,
        )
        for folder, (slices, masks) in patients.items()
        for stem, image_path, mask_path in match(slices, masks)
    ]


def _is_repetition(path: PurePosixPath, names: set[str]) -> bool:
    """Whether the same patient's file is also there with fewer folders above it."""
    parts = path.parts
    # The last two parts are the patient and the slice; those above may be left out.
    return any("/".join(parts[i:]) in names for i in range(1, len(parts) - 1))
