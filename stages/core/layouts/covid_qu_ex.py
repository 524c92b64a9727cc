"""COVID-QU-Ex: `images` and `lung masks` by side of its own split and by class.

The data set ships two trees. `Infection Segmentation Data` repeats some cases of
`Lung Segmentation Data`, so it is read only where the latter is missing. The masks
taken are those of the lungs.
"""

from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath

from stages.core.layouts import About, Entry, Tree, images, match

ABOUT = About(
    dataset="COVID-QU-Ex",
    page="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    licence="CC BY-SA 4.0",
    citation=(
        "Tahir et al., COVID-19 infection localization and severity grading from "
        "chest X-ray images, Computers in Biology and Medicine 139, 2021"
    ),
    mask_definition=(
        "lung fields as they are seen: white (255) is lung; without the lung behind "
        "the heart and below the diaphragm"
    ),
)
TREE = (
    "Lung Segmentation Data/{Train,Val,Test}/CLASS/images/NAME.png "
    "with CLASS/lung masks/NAME.png"
)
SIDES = {"train": "train", "val": "validation", "test": "test"}


def find(tree: Tree) -> list[Entry]:
    """Pairs `images/NAME` with `lung masks/NAME` inside each side and class."""
    folders: dict[PurePosixPath, dict[str, list[tuple[str, PurePosixPath]]]] = {}
    for path in images(tree.names):
        kind = path.parent.name.lower()
        folder = path.parent.parent
        if kind in ("images", "lung masks") and folder.parent.name.lower() in SIDES:
            kinds = folders.setdefault(folder, {"images": [], "lung masks": []})
            kinds[kind].append((path.stem, path))
    lung_tree = {folder for folder in folders if _is_of_lung_tree(folder)}
    entries = [
        Entry(
            pair_id=stem,
            class_name=folder.name,
            image_path=image_path,
            mask_path=mask_path,
            given_split=SIDES[folder.parent.name.lower()],
        )
        for folder in lung_tree or folders
        for stem, image_path, mask_path in match(
            folders[folder]["images"], folders[folder]["lung masks"]
        )
    ]
    return _told_apart(entries)


def _is_of_lung_tree(folder: PurePosixPath) -> bool:
    return "lung segmentation data" in str(folder).lower()


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Names the side and the class in ids that occur under more than one of them."""
    places = {(e.pair_id, e.given_split, e.class_name) for e in entries}
    uses = Counter(pair_id for pair_id, _, _ in places)
    return [
        replace(e, pair_id=f"{e.given_split}-{e.class_name}-{e.pair_id}")
        if uses[e.pair_id] > 1
        else e
        for e in entries
    ]
