"""The published data sets in small: their names and formats, pictures made here."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests.conftest import lungs, png, radiography_tree

SIDE = 32


def write_radiography(root: Path) -> None:
    """Five films in each of two classes; images of 40 x 40."""
    radiography_tree(root, {"COVID": 5, "Normal": 5}, image_size=40, mask_size=SIDE)


def write_covid_qu_ex(root: Path) -> None:
    """Four films a side; one that is held out is also, byte for byte, trained on.

    The tree of infections repeats them all: part of a lung is infected, if any is.
    """
    top = root / "Lung Segmentation Data" / "Lung Segmentation Data"
    seed = 0
    for side in ("Train", "Val", "Test"):
        for class_name in ("COVID-19", "Normal"):
            for _ in range(2):
                seed += 1
                image, mask = lungs(seed, image_size=SIDE, mask_size=SIDE)
                for kind, pixels in (("images", image), ("lung masks", mask)):
                    folder = top / side / class_name / kind
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"film ({seed}).png").write_bytes(png(pixels))
    for kind in ("images", "lung masks"):
        shutil.copy(
            top / "Test" / "Normal" / kind / f"film ({seed}).png",
            top / "Train" / "Normal" / kind / "copy.png",
        )
    infection = root / "Infection Segmentation Data" / "Infection Segmentation Data"
    shutil.copytree(top, infection)
    for lung in sorted(infection.rglob("lung masks/*.png")):
        mask = cv2.imread(str(lung), cv2.IMREAD_GRAYSCALE)
        mask[SIDE // 2 if "COVID-19" in str(lung) else 0 :] = 0
        folder = lung.parent.with_name("infection masks")
        folder.mkdir(exist_ok=True)
        (folder / lung.name).write_bytes(png(mask))


def write_lgg(root: Path) -> None:
    """Six patients, a tumour in one slice of four, three channels; all of it twice."""
    generator = np.random.default_rng(5)
    for number in range(6):
        patient = f"TCGA_XX_{4900 + number}_19960909"
        folder = root / "kaggle_3m" / patient
        folder.mkdir(parents=True)
        for index in range(1, 5):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            if index == 2:
                cv2.circle(mask, (10 + 2 * number, 20 - number), 4, 255, -1)
            image = generator.normal(90, 20, (SIDE, SIDE, 3))
            image[:, :, 1] += mask * 0.5
            for ending, pixels in (("", image.clip(0, 255)), ("_mask", mask)):
                name = str(folder / f"{patient}_{index}{ending}.tif")
                assert cv2.imwrite(name, pixels.astype(np.uint8))
    (root / "kaggle_3m" / "data.csv").write_text("Patient,age\n", "utf-8")
    shutil.copytree(root / "kaggle_3m", root / "lgg-mri-segmentation" / "kaggle_3m")


# By layout.
WRITERS: dict[str, Callable[[Path], None]] = {
    "covid19_radiography": write_radiography,
    "covid_qu_ex": write_covid_qu_ex,
    "lgg_mri": write_lgg,
}
