"""COVID-QU-Ex: `images` and two kinds of masks, by side of its own split and by class.

The data set ships two trees. `Lung Segmentation Data` has masks of the lungs.
`Infection Segmentation Data` repeats some of its cases, with masks of the infection
too, which are black where a film shows none. So `lung` reads the second tree only where
the first is missing, and `infection` never reads the first.

The sides that the data set itself draws (`Train`, `Val`, `Test`) are kept for
`split.use_given`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from stages.datasets.layouts import About, Entry, Target, Tree, images, match

ABOUT = About(
    dataset="COVID-QU-Ex",
    page="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    licence="CC BY-SA 4.0",
    citation=(
        "Tahir et al., COVID-19 infection localization and severity grading from "
        "chest X-ray images, Computers in Biology and Medicine 139, 2021"
    ),
    targets={
        "lung": Target(
            "lung fields as they are seen: white (255) is lung; without the lung "
            "behind the heart and below the diaphragm"
        ),
        "infection": Target(
            "what COVID-19 has infected, in chest radiographs: white (255) is "
            "infected; none where there is no such infection",
            may_be_absent=True,
        ),
    },
)
TREE = (
    "Lung Segmentation Data/{Train,Val,Test}/CLASS/images/NAME.png with CLASS/lung "
    "masks/NAME.png, or Infection Segmentation Data/... with CLASS/infection masks"
)
SIDES = {"train": "train", "val": "validation", "test": "test"}


def find(tree: Tree, target: str = "lung", /) -> list[Entry]:
    """Pairs `images/NAME` with the target's `masks/NAME` in each side and class."""
    masks = f"{target or 'lung'} masks"
    folders: dict[PurePosixPath, dict[str, list[tuple[str, str]]]] = {}
    for path in images(tree.names):
        kind = path.parent.name.lower()
        folder = path.parent.parent
        if kind in ("images", masks) and folder.parent.name.lower() in SIDES:
            kinds = folders.setdefault(folder, {"images": [], masks: []})
            kinds[kind].append((path.stem, str(path)))
    entries = [
        Entry(
            pair_id=stem,
            class_name=folder.name,
            image_path=image_path,
            mask_path=mask_path,
            given_split=SIDES[folder.parent.name.lower()],
        )
        for folder in _of_one_tree(folders, target or "lung")
        for stem, image_path, mask_path in match(
            folders[folder]["images"], folders[folder][masks]
        )
    ]
    return _told_apart(entries)


def _of_one_tree(folders: Iterable[PurePosixPath], target: str) -> list[PurePosixPath]:
    """The folders of the target's own tree; all, where neither tree is named so."""
    own = [f for f in folders if f"{target} segmentation data" in str(f).lower()]
    if own:
        return own
    # The tree of lungs has no masks of infection: each image would be an orphan.
    other = "lung segmentation data" if target == "infection" else None
    return [f for f in folders if other is None or other not in str(f).lower()]


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
