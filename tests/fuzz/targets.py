"""What reads foreign bytes, and by which errors it may refuse them."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from stages.core import imaging, provenance
from stages.core.errors import PipelineError
from stages.core.imaging import UnreadableImageError
from stages.core.params import Params, load_params, parse_params
from stages.datasets import dicom as reader
from stages.datasets import layouts, pairs
from stages.datasets.sources.folder import pairs_in
from stages.datasets.tree import UnreadableError, open_tree
from stages.inference import segmenter
from stages.validate import facts
from tests.conftest import ROOT, TINY, with_overrides
from tests.fuzz import mutation, seeds
from tests.inference.onnx_models import dark_is_lung

SIZE = 32  # side of the tiny networks' input, pixels


@dataclass(frozen=True)
class Target:
    """One reader: it gives an answer or one of its own refusals, and nothing else."""

    share: int  # of 1,000 inputs
    read: Callable[[bytes], Any]
    seeds: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...] = (PipelineError,)
    spoil: Callable[[Random, bytes, list[bytes]], bytes] = mutation.spoil


@functools.cache
def shipped() -> Params:
    """The shipped params, with bounds that small inputs can reach."""
    values = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text("utf-8"))
    small = {
        "ingest.max_file_bytes": 2**20,
        "ingest.max_zip_members": 1000,
        "ingest.max_zip_bytes": 2**24,
        "ingest.source": "folder",
    }
    return parse_params(with_overrides(values, small | TINY))


@functools.cache
def folder() -> Path:
    """Where inputs lie that are read by name, and what is built once a process."""
    made = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, made)
    return made


def _file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def _image(data: bytes) -> None:
    """As validate does, then as predict does; what is decoded is what was declared."""
    bound = shipped().validate_.max_image_pixels
    grey, found = facts.read_side(data, "a.png", bound)
    if grey is None:
        raise UnreadableImageError(found["problem"])
    for channels in (1, 3):
        imaging.preprocess(imaging.decode_image(data, channels), SIZE)
    facts.phash(grey)
    imaging.num_components(imaging.decode_mask(data))


def _dicom(data: bytes) -> None:
    film = reader.read(data)
    assert film.pixels.dtype == np.uint8
    low, high = reader.PLAUSIBLE_MM
    assert film.spacing is None or low <= min(film.spacing) <= max(film.spacing) <= high


def _zip(data: bytes) -> None:
    """Every layout over one archive; each member that a layout names is read."""
    path = _file("a.zip", data)
    params = shipped().ingest
    tree = open_tree(path, params)
    for name in tree.names:
        parts = Path(name).parts
        assert ".." not in parts, name
        assert not name.startswith("/"), name
    refusals = []
    for layout in ("covid19_radiography", "covid_qu_ex", "lgg_mri", "pairs"):
        try:
            for pair in pairs_in(path, params.model_copy(update={"layout": layout})):
                pair.problem.encode("utf-8")
        except PipelineError as error:
            refusals.append(error)
    if len(refusals) == 4:
        raise refusals[0]


class _Table:
    """A tree of one table and the files that the seed names."""

    label = "somewhere"
    names = ("pairs.csv", "a/1.png", "b/1.png", "a/2.png", "b/2.png")

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, name: str) -> bytes:
        return self._data


def _table(data: bytes) -> None:
    layouts.find_pairs("pairs", _Table(data), classes=[], limit=0)


def _splits(data: bytes) -> None:
    table = pairs.read_splits(_file("pairs.csv", data))
    assert set(table["split"]) <= set(pairs.SPLITS)


def _shard(data: bytes) -> None:
    path = _file("COVID-00000.parquet", data)
    for pair in pairs.read_shard(path):
        for content in (pair.image, pair.mask):
            assert content is None or isinstance(content, bytes)


def _params(data: bytes) -> None:
    load_params(_file("params.yaml", data))


def _checkpoint(data: bytes) -> None:
    """A spoilt checkpoint is as good as none."""
    from stages.nn.checkpoint import Checkpoint

    _file("checkpoint.npz", data)
    if Checkpoint(folder(), "fingerprint").load() is None:
        raise PipelineError("none")


@functools.cache
def network() -> Any:
    """A tiny untrained network, as train saves it."""
    import keras

    from stages.nn import models

    keras.utils.set_random_seed(1)
    return models.build(shipped().train)


def _keras_seeds() -> list[bytes]:
    from stages.core import canonical

    path = folder() / "seed.keras"
    network().save(path)
    canonical.keras_archive(path)
    return [path.read_bytes()]


def _keras(data: bytes) -> None:
    """A spoilt model is refused or predicts."""
    from stages.nn.inference import load_model

    model = load_model(_file("unet.keras", data))
    _, size, _, channels = model.input_shape
    assert 0 < size <= 4096, size
    assert channels in (1, 3), channels


FACTS = {"inputs": {"model": {"sha256": "2"}}, "params": {"evaluate": {"threshold": 1}}}


def _onnx_seeds() -> list[bytes]:
    return [dark_is_lung(folder() / "s.onnx", SIZE, facts=FACTS).read_bytes()]


def _onnx(data: bytes) -> None:
    """As predict opens it, and as the provenance tool reads it."""
    path = _file("unet.onnx", data)
    refusals = []
    try:
        provenance.read(path)
    except PipelineError as error:
        refusals.append(error)
    model = segmenter.load(path)
    size, channels = model.image_size, model.image_channels
    model.predict(np.zeros((1, size, size, channels), np.float32))
    if refusals:
        raise refusals[0]


def _litert_seeds() -> list[bytes]:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], []
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    return [provenance.into_litert(bytes(builder.Output()), FACTS)]


def _litert(data: bytes) -> None:
    provenance.read(_file("unet.tflite", data))


def _spoil_zip(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    way = random.choice((mutation.spoil, mutation.spoil_zip))
    return way(random, data, corpus)


def _spoil_image(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    inside = mutation.spoil_png if data[:4] == b"\x89PNG" else mutation.spoil_tags
    way = random.choice((mutation.spoil, inside))
    return way(random, data, corpus)


def _spoil_dicom(random: Random, data: bytes, corpus: list[bytes]) -> bytes:
    way = random.choice((mutation.spoil, mutation.spoil_dicom))
    return way(random, data, corpus)


TARGETS = {
    "image": Target(420, _image, seeds.images, (UnreadableImageError,), _spoil_image),
    "dicom": Target(
        100,
        _dicom,
        seeds.dicoms,
        (UnreadableImageError, UnreadableError),
        _spoil_dicom,
    ),
    "zip": Target(120, _zip, seeds.zips, spoil=_spoil_zip),
    "shard": Target(100, _shard, lambda: seeds.shards(folder() / "shards")),
    "table": Target(80, _table, lambda: [seeds.TABLE]),
    "splits": Target(50, _splits, lambda: [seeds.SPLITS]),
    "params": Target(40, _params, seeds.params),
    "onnx": Target(25, _onnx, _onnx_seeds),
    "litert": Target(35, _litert, _litert_seeds),
    "checkpoint": Target(
        20, _checkpoint, lambda: seeds.checkpoints("fingerprint"), spoil=_spoil_zip
    ),
    "keras": Target(10, _keras, _keras_seeds, spoil=_spoil_zip),
}
assert sum(target.share for target in TARGETS.values()) == 1000
