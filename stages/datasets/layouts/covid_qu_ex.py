"""COVID-QU-Ex: `images` and two kinds of masks, by official side and class.

The data set ships two trees. `Lung Segmentation Data` has masks of the lungs.
`Infection Segmentation Data` repeats some of its cases and adds masks of the infection,
which are black if a film shows none. The target `lung` therefore reads the second tree
only if the first is missing, and `infection` never reads the first. Its masks of the
lungs are the region of which the infection is a part.

The official sides (`Train`, `Val`, `Test`) are kept for `split.use_official_split`.
"""

from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath

from stages.datasets.layouts import About, File, images, match
from stages.datasets.masks import LUNG_WITHOUT_HEART, MaskDefinition
from stages.datasets.pairs import Pair
from stages.datasets.tree import Tree

ABOUT = About(
    dataset="COVID-QU-Ex",
    page="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    licence="CC BY-SA 4.0",
    citation=(
        "Tahir et al., COVID-19 infection localization and severity grading from "
        "chest X-ray images, Computers in Biology and Medicine 139, 2021"
    ),
    targets={
        "lung": LUNG_WITHOUT_HEART,
        "infection": MaskDefinition(
            "covid-19-infection",
            "what COVID-19 has infected, in chest radiographs: white (255) is "
            "infected; none where there is no such infection",
            may_be_empty=True,
        ),
    },
    classes=frozenset({"COVID-19", "Non-COVID", "Normal"}),
)
TREE = (
    "Lung Segmentation Data/{Train,Val,Test}/CLASS/images/NAME.png with CLASS/lung "
    "masks/NAME.png, or Infection Segmentation Data/... with CLASS/infection masks"
)
SIDES = {"train": "train", "val": "validation", "test": "test"}


def find(tree: Tree, target: str, /) -> list[Pair]:
    """Pairs `images/NAME` with the target's `masks/NAME` in each side and class."""
    masks = f"{target or 'lung'} masks"
    regions = {
        (path.parent.parent, path.stem): str(path)
        for path in images(tree.names)
        if target == "infection" and path.parent.name.lower() == "lung masks"
    }
    files = [
        File(path, path.parent.parent, path.stem, kind == masks)
        for path in images(tree.names)
        for kind in [path.parent.name.lower()]
        if kind in ("images", masks) and path.parent.parent.parent.name.lower() in SIDES
    ]
    folders = _folders_of_tree({file.folder for file in files}, target or "lung")
    return _with_unique_ids(
        match(
            (file for file in files if file.folder in folders),
            lambda folder, key: {
                "pair_id": key,
                "class_name": folder.name,
                "given_split": SIDES[folder.parent.name.lower()],
                "region_path": regions.get((folder, key), ""),
            },
        )
    )


def _folders_of_tree(folders: set[PurePosixPath], target: str) -> set[PurePosixPath]:
    """The folders in the target's own tree; all, if no tree has that name."""
    own = {f for f in folders if f"{target} segmentation data" in str(f).lower()}
    if own or target == "lung":
        return own or folders
    # The tree of lungs has no masks of infection: every image would be an orphan.
    return {f for f in folders if "lung segmentation data" not in str(f).lower()}


def _with_unique_ids(pairs: list[Pair]) -> list[Pair]:
    """Adds side and class to the ids that occur under several of them."""
    places = {(pair.pair_id, pair.given_split, pair.class_name) for pair in pairs}
    uses = Counter(pair_id for pair_id, _, _ in places)
    return [
        replace(p, pair_id=f"{p.given_split}-{p.class_name}-{p.pair_id}")
        if uses[p.pair_id] > 1
        else p
        for p in pairs
    ]
