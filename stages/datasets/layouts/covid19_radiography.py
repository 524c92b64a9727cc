"""COVID-19 Radiography Database: one folder per class, `images` and `masks` inside.

Any folder that holds `images` and `masks` is a class, at any depth. A tree of the same
shape with other classes, or without the top folder, is therefore read as well. The
published data set has COVID, Normal, Lung_Opacity and Viral Pneumonia.
"""

from stages.datasets.layouts import About, File, id_in, images, match
from stages.datasets.masks import LUNG_WITHOUT_HEART
from stages.datasets.pairs import Pair
from stages.datasets.tree import Tree

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
    targets={"lung": LUNG_WITHOUT_HEART},
    classes=frozenset({"COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"}),
)
TREE = "CLASS/images/NAME.png with CLASS/masks/NAME.png, under any top folder"


def find(tree: Tree, _target: str, /) -> list[Pair]:
    """Pairs `images/NAME` with `masks/NAME` inside each class folder."""
    files = (
        File(path, path.parent.parent, path.stem, kind == "masks")
        for path in images(tree.names)
        for kind in [path.parent.name.lower()]
        if kind in ("images", "masks") and path.parent.parent.name
    )
    return match(
        files,
        lambda folder, key: {
            "pair_id": id_in(folder.name, key),
            "class_name": folder.name,
        },
    )
