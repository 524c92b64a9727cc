"""COVID-19 Radiography Database: a folder a class, `images` and `masks` inside.

Any folder that holds `images` and `masks` is a class, at any depth, so that a tree
of the same shape with other classes, or without the top folder, is read as well.
The published set has COVID, Normal, Lung_Opacity and Viral Pneumonia.
"""

from pathlib import PurePosixPath

from stages.datasets.layouts import About, Entry, Target, Tree, images, match, told_by

ABOUT = About(
    dataset="COVID-19 Radiography Database",
    page="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
    licence="Data files © Original Authors",
    citation=(
        "Chowdhury et al., Can AI Help in Screening Viral and COVID-19 Pneumonia?, "
        "IEEE Access 8, 2020; Rahman et al., Exploring the effect of image "
        "enhancement techniques on COVID-19 detection using chest X-ray images, "
        "Computers in Biology and Medicine 132, 2021"
    ),
    targets={
        "lung": Target(
            "lung fields as they are seen: white (255) is lung; without the lung "
            "behind the heart and below the diaphragm"
        )
    },
)
TREE = "CLASS/images/NAME.png with CLASS/masks/NAME.png, under any top folder"


def find(tree: Tree, _target: str = "", /) -> list[Entry]:
    """Pairs `images/NAME` with `masks/NAME` inside each class folder."""
    folders: dict[PurePosixPath, dict[str, list[tuple[str, str]]]] = {}
    for path in images(tree.names):
        kind = path.parent.name.lower()
        class_folder = path.parent.parent
        if kind in ("images", "masks") and class_folder.name:
            sides = folders.setdefault(class_folder, {"images": [], "masks": []})
            sides[kind].append((path.stem, str(path)))
    return [
        Entry(
            pair_id=told_by(class_folder.name, stem),
            class_name=class_folder.name,
            image_path=image_path,
            mask_path=mask_path,
        )
        for class_folder, sides in folders.items()
        for stem, image_path, mask_path in match(sides["images"], sides["masks"])
    ]
