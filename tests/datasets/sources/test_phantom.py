"""Are the phantoms what they promise: known lungs, same bytes, the target's form?"""

import hashlib
import itertools

import cv2
import numpy as np
import pytest

from benchmarks import processes
from stages.core import imaging
from stages.core.errors import PipelineError
from stages.datasets.pairs import natural_key
from stages.datasets.sources import phantom
from tests.conftest import TINY, run_python

NAMES = ["COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"]


@pytest.fixture
def drawn(section):
    """Draws tiny phantoms: `drawn(pairs=9)`; `others` are params of ingest."""

    def draw(others=(), **phantoms):
        values = {f"phantom.{key}": value for key, value in phantoms.items()}
        return list(phantom.pairs(section("ingest", **values, **dict(others))))

    return draw


def test_same_seed_same_bytes_another_seed_others(drawn):
    assert drawn(pairs=6) == drawn(pairs=6)
    ours, theirs = drawn(pairs=6, seed=1), drawn(pairs=6, seed=2)
    assert all(a.image != b.image for a, b in zip(ours, theirs, strict=True))


def test_shared_out_evenly_in_class_then_natural_order(drawn):
    pairs = drawn(pairs=46)
    names = [pair.class_name for pair in pairs]
    assert [names.count(name) for name in NAMES] == [12, 12, 11, 11]
    assert names == sorted(names, key=NAMES.index)
    for _, members in itertools.groupby(pairs, key=lambda pair: pair.class_name):
        ids = [pair.pair_id for pair in members]
        assert ids == sorted(ids, key=natural_key)
    assert pairs[1].pair_id == "COVID-2"
    assert pairs[1].image_path == "COVID/images/COVID-2.png"
    assert pairs[1].mask_path == "COVID/masks/COVID-2.png"
    assert len({pair.pair_id for pair in pairs}) == 46


def test_unknown_class_is_refused_before_anything_is_drawn(drawn):
    with pytest.raises(PipelineError, match=r"COVID, Lung_Opacity.*'Asthma'"):
        drawn({"classes": ["COVID", "Asthma"]})


def test_more_pairs_leave_the_earlier_ones_as_they_were(drawn):
    few = {pair.pair_id: pair for pair in drawn(pairs=8)}
    many = {pair.pair_id: pair for pair in drawn(pairs=24)}
    alone = {p.pair_id: p for p in drawn({"classes": ["Normal"], "limit": 3}, pairs=6)}
    assert list(alone) == ["Normal-1", "Normal-2", "Normal-3"]
    assert all(many[name] == pair for name, pair in few.items())
    assert all(many[name] == pair for name, pair in alone.items())


@pytest.mark.parametrize(("image_size", "mask_size"), [(16, 16), (40, 32), (33, 97)])
def test_form_is_the_targets_at_any_size(drawn, image_size, mask_size):
    for pair in drawn(pairs=12, image_size=image_size, mask_size=mask_size):
        image = imaging.decode(pair.image)
        mask = imaging.decode(pair.mask)
        assert image.shape[:2] == (image_size, image_size)
        assert image.dtype == np.uint8
        assert image.std() > 4
        assert mask.shape == (mask_size, mask_size, 3)
        assert np.isin(mask, [0, 255]).all()
        assert (mask == mask[:, :, :1]).all()
        assert 0.02 < (mask > 0).mean() < 0.75


def test_lungs_are_two_and_darker_than_what_surrounds_them(drawn):
    # Normal lungs: disease may whiten a whole one.
    pairs = drawn({"classes": ["Normal"]}, pairs=20, image_size=128, mask_size=128)
    two = darker = 0
    for pair in pairs:
        image = imaging.decode_image(pair.image).astype(float)
        mask = imaging.decode_mask(pair.mask)
        two += imaging.num_components(mask) == 2
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0
        darker += image[mask].mean() < image[wide & ~mask].mean() - 5
    assert two >= 18
    assert darker == 20


def test_mask_is_the_same_anatomy_at_every_size(drawn):
    small = drawn(pairs=8, mask_size=64)
    large = drawn(pairs=8, mask_size=256)
    for a, b in zip(small, large, strict=True):
        fine = (
            imaging.decode_mask(b.mask).reshape(64, 4, 64, 4).mean(axis=(1, 3)) >= 0.5
        )
        coarse = imaging.decode_mask(a.mask)
        assert 2 * (fine & coarse).sum() / (fine.sum() + coarse.sum()) > 0.97


def test_copies_and_patients_give_the_split_something_to_group(drawn):
    pairs = drawn({"classes": ["COVID"]}, pairs=40)
    hashes = [hashlib.sha256(pair.image).hexdigest() for pair in pairs]
    assert 1 <= len(hashes) - len(set(hashes)) <= 2

    groups = [pair.group for pair in pairs if pair.group]
    assert all(group.startswith("patient-") for group in groups)
    assert 1 <= len(set(groups)) <= 2
    assert all(groups.count(group) == 2 for group in groups)

    images = [imaging.decode_image(pair.image).astype(int) for pair in pairs]
    near = [
        (i, j)
        for i, j in itertools.combinations(range(40), 2)
        if hashes[i] != hashes[j] and np.abs(images[i] - images[j]).max() <= 8
    ]
    assert 1 <= len(near) <= 2
    assert all(pairs[i].mask == pairs[j].mask for i, j in near)


def test_another_processor_draws_the_same_bytes(drawn, isolated):
    """Without the widest instructions, Intel's library and threads."""
    here = hashlib.sha256(b"".join(p.image + p.mask for p in drawn()))
    processes.write_params(TINY, isolated)
    script = (
        "import cv2, hashlib\n"
        "from stages.core.params import load_params\n"
        "from stages.datasets.sources import phantom\n"
        "cv2.setNumThreads(1)\n"
        "pairs = phantom.pairs(load_params().ingest)\n"
        "print(hashlib.sha256(b''.join(p.image + p.mask for p in pairs)).hexdigest())\n"
    )
    there = run_python(
        "-c",
        script,
        NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4",
        OPENCV_CPU_DISABLE="AVX512-SKX,AVX2,FMA3,AVX",
        OPENCV_IPP="disabled",
    )
    assert there.stdout.strip() == here.hexdigest(), there.stderr
