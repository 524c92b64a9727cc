"""Real files to spoil, small, a few of each kind; the same bytes each time."""

import io
import json
import re
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pydicom.uid import RLELossless

from stages.datasets.pairs import Pair, write_shards
from tests.conftest import ROOT, lungs, png
from tests.core.test_imaging import chunk, saved, tiff
from tests.datasets.sources.test_dicom import dicom


def raw_png(rows: np.ndarray, *, depth: int, kind: int, chunks: bytes = b"") -> bytes:
    """A PNG from packed rows (H, bytes), of any depth and colour type."""
    width = {1: 8, 2: 4, 4: 2}.get(depth, 1) * rows.shape[1]
    width //= {2: 3, 4: 2, 6: 4}.get(kind, 1) * (2 if depth == 16 else 1)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunks, chunk(b"IDAT", data),
         chunk(b"IEND", b""))
    )  # fmt: skip


def pngs() -> list[bytes]:
    """Every colour type and depth, and the chunks that change what pixels mean."""
    bits = np.random.default_rng(1).integers(0, 256, (12, 24), np.uint8)
    palette = chunk(b"PLTE", bytes(range(255, -1, -1)) * 3)
    return [
        png(lungs(1)[0]),
        png(cv2.cvtColor(lungs(2)[1], cv2.COLOR_GRAY2BGR)),
        raw_png(bits[:, :3], depth=1, kind=0),
        raw_png(bits, depth=16, kind=0, chunks=chunk(b"gAMA", b"\0\0\xb1\x8f")),
        raw_png(bits, depth=8, kind=3, chunks=palette + chunk(b"tRNS", bytes(256))),
        raw_png(bits, depth=8, kind=4, chunks=chunk(b"tEXt", b"Comment\0hello")),
        raw_png(bits, depth=8, kind=6, chunks=chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0")),
        raw_png(
            bits, depth=8, kind=0,
            chunks=chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(300)))
            + chunk(b"acTL", struct.pack(">II", 1, 0))
            + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 24, 12, 0, 0, 1, 9, 0, 0)),
        ),
    ]  # fmt: skip


def images() -> list[bytes]:
    """Each format that is read, and those that only look alike."""
    grey, mask = lungs(3)
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    made = [
        (".jpg", grey, []),
        (".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".bmp", grey, []),
        (".bmp", colour, []),
        (".tiff", grey, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        (".tiff", colour, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        (".tiff", grey.astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 8]),
        (".tiff", mask, [cv2.IMWRITE_TIFF_COMPRESSION, 32773]),
        (".tiff", grey.astype(np.float32), []),
    ]
    encoded = [cv2.imencode(suffix, pixels, flags)[1] for suffix, pixels, flags in made]
    image, exif, more = Image.fromarray(grey), Image.Exif(), [Image.fromarray(mask)]
    exif[0x0112] = 6  # orientation
    meant = [saved(image, format=kind, exif=exif) for kind in ("png", "jpeg", "tiff")]
    meant += [
        saved(image, format="tiff", save_all=True, append_images=more),
        saved(image.convert("RGBA"), format="tiff", compression="tiff_lzw"),
        saved(image.quantize(8), format="tiff", compression="packbits"),
        tiff(grey.astype(np.uint16) * 257, photometric=0, orientation=5),
    ]
    return [*pngs(), *(bytes(one) for one in encoded), *meant]


def dicoms() -> list[bytes]:
    """Grey and colour, deep, windowed, deflated, and with odd tags."""
    grey = lungs(3, image_size=24)[0]
    deep = grey.astype(np.uint16) * 4
    window = {"WindowCenter": "400", "WindowWidth": "300", "RescaleSlope": "2"}
    return [
        dicom(grey),
        dicom(deep, PhotometricInterpretation="MONOCHROME1", RescaleIntercept="-1024"),
        dicom(deep, **window),
        dicom(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)),
        dicom(grey, syntax=RLELossless),
        dicom(deep, PixelPaddingValue=4000, PixelPaddingRangeLimit=3000),
        dicom(deep, WindowCenter=[400, 300], WindowWidth=[0, 9], HighBit=11),
        dicom(deep, PixelSpacing=[0.2, 0.1], ImagerPixelSpacing=[0.4, 0.4]),
    ]


TABLE = (
    "image,mask,group,class_name\r\n"
    '"a/1.png",b/1.png,patient 1,COVID\r\n'
    "a/2.png,b/2.png,,Normal\n"
    '"a/ü ""3"".png",,patient 2,COVID\n'
).encode()
SPLITS = (
    "pair_id,class_name,group,split\n"
    "COVID-1,COVID,g1,train\nCOVID-2,COVID,g2,validation\n"
    '"Ж, 3",Normal,"g\n3",train\n'
).encode()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip without a clock."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def zips() -> list[bytes]:
    """The layouts, packed and stored."""
    image, mask = (png(pixels) for pixels in lungs(4, image_size=12, mask_size=8))
    radiography = {
        f"COVID-19_Radiography_Dataset/{name}/{side}/{name}-{number}.png": content
        for name in ("COVID", "Viral Pneumonia")
        for side, content in (("images", image), ("masks", mask))
        for number in (1, 2)
    }
    table = {"pairs.csv": TABLE, "a/1.png": image, "b/1.png": mask, "a/2.png": b""}
    mri = {"kaggle_3m/P/P_1.tif": image, "kaggle_3m/P/P_1_mask.tif": mask}
    return [
        zipped(radiography),
        zipped(table, zipfile.ZIP_STORED),
        zipped(mri | {"notes/": b""}),
        zipped({"images/x.png": image, "masks/x.png": mask}),
    ]


def shards(folder: Path) -> list[bytes]:
    """As ingest writes them; and the same table compressed, as it never does."""
    image, mask = (png(pixels) for pixels in lungs(5, image_size=12, mask_size=8))
    common = {"class_name": "COVID", "image_path": "a.png", "mask_path": "b.png"}
    pairs = [
        Pair(pair_id="COVID-1", image=image, mask=mask, **common),
        Pair(pair_id="COVID-2", image=image, group="p", problem="too large", **common),
        Pair(pair_id="COVID-3", mask=mask, **common),
    ]
    write_shards(pairs, folder, shard_pairs=8)
    (written,) = folder.glob("*.parquet")
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(written), buffer, compression="snappy")
    return [written.read_bytes(), buffer.getvalue()]


def params() -> list[bytes]:
    """The shipped file without its comments, and YAML's odder corners."""
    text = (ROOT / "params.yaml").read_text("utf-8")
    bare = re.sub(r"\s*#.*", "", text)
    sections = re.split(r"\n(?=\w)", bare)
    corners = (
        b"ingest: &a {limit: 1}\nvalidate:\n  <<: *a\nsplit: [*a, *a]\n",
        b"? [a, b]\n: !!set {x}\n? !!binary aGk=\n: !!timestamp 2001-12-14\n",
        b"gate:\n  min: {dice: {mean: .nan}}\n  max: &b {x: 1}\n",
        b"split: {seed: 0xffff, fold: 0o17, folds: 1_000}\ntrain: |\n  text\n",
    )
    return [bare.encode(), *(s.encode() for s in sections), *corners]


def checkpoints(fingerprint: str) -> list[bytes]:
    """As train writes them."""
    head = {"fingerprint": fingerprint, "table": {"epoch": 1, "history": []}}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{
            "state/00000": np.zeros((3, 3, 4), np.float32),
            "state/00001": np.arange(5, dtype=np.int64),
            "best/00000": np.float32(0.5),
            "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        },
    )
    return [buffer.getvalue()]
