"""Is a DICOM image what a viewer shows, and does its patient stay unnamed?"""

import io
import logging
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from stages.core import files, paths
from stages.datasets import dicom as reader
from stages.datasets.pairs import read_shard, shard_paths
from stages.datasets.sources import folder
from stages.datasets.tree import UnreadableError
from stages.ingest import ingest
from tests.conftest import lungs, png

IMAGE, MASK = lungs(1)
DEEP = IMAGE.astype(np.uint16) * 4
NAME, PATIENT = "Mustermann^Erika", "4711-0815"


def dicom(
    pixels: np.ndarray = DEEP,
    *,
    patient: str = PATIENT,
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """A DICOM file with a patient's name all over it."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    file.PatientName, file.PatientID = NAME, patient
    file.PatientBirthDate, file.InstitutionName = "19640812", "Krankenhaus Musterstadt"
    file.PatientComments = f"{NAME}, {patient}"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    file.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    file.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    if bits == 16:
        file.BitsStored, file.HighBit = 12, 11
    file.PixelRepresentation = 0
    file.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    if syntax == RLELossless:
        file.compress(RLELossless, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        file.PixelData = pydicom.encaps.encapsulate([b"not decoded here"])
        file["PixelData"].is_undefined_length = True
        file.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def shown(**options: Any) -> np.ndarray:
    return reader.read(dicom(**options)).pixels


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(float) - values.min()
    return np.round(values * 255 / values.max()).astype(np.uint8)


class TestPicture:
    def test_deep_greys_are_stretched_to_8_bits(self):
        assert np.array_equal(shown(), stretched(DEEP))

    def test_8_bits_stay_as_they_are(self):
        assert np.array_equal(shown(pixels=IMAGE), IMAGE)

    def test_monochrome1_is_a_negative(self):
        inverted = shown(pixels=255 - IMAGE, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(inverted, IMAGE)

    def test_a_window_cuts_and_is_taken_after_the_rescale(self):
        # Rescaled, IMAGE is itself less 100: the window shows 100 to 150 of it.
        windowed = shown(
            pixels=IMAGE.astype(np.uint16),
            RescaleSlope=1,
            RescaleIntercept=-100,
            WindowCenter=[25.5, 400],
            WindowWidth=[51, 800],
        ).astype(int)
        assert (windowed[IMAGE <= 100] == 0).all()
        assert (windowed[IMAGE >= 150] == 255).all()
        inside = (IMAGE > 100) & (IMAGE < 150)
        expected = (IMAGE[inside].astype(float) - 100) / 50 * 255
        assert np.abs(windowed[inside] - expected).max() <= 1

    def test_the_first_window_with_a_width_counts(self):
        first = shown(WindowCenter=[400, 300, 9], WindowWidth=[0, 200, 5])
        assert np.array_equal(first, shown(WindowCenter=300, WindowWidth=200))
        assert first.min() == 0
        for width in (0, None, [0, 0]):
            unwindowed = shown(WindowCenter=99, WindowWidth=width)
            assert np.array_equal(unwindowed, stretched(DEEP))

    def test_a_window_wider_than_the_image_is_not_stretched(self):
        found = shown(WindowCenter=2048, WindowWidth=4096).astype(float)
        assert np.abs(found - DEEP / 4095 * 255).max() <= 1

    @pytest.mark.parametrize(
        ("limit", "padding"), [({}, 4000), ({"PixelPaddingRangeLimit": 3990}, 3995)]
    )
    @pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
    def test_padding_is_black_and_outside_the_stretch(self, limit, padding, kind):
        padded = DEEP.copy()
        padded[:, :9] = padding
        tags = {"PhotometricInterpretation": kind, "PixelPaddingValue": 4000}
        found = shown(pixels=padded, **tags, **limit)
        inside = stretched(DEEP[:, 9:])
        wanted = inside if kind == "MONOCHROME2" else 255 - inside
        assert (found[:, :9] == 0).all()
        assert np.array_equal(found[:, 9:], wanted)

    def test_a_lookup_table_is_obeyed(self):
        table = Dataset()
        table.LUTDescriptor = [256, 0, 16]
        table.LUTData = (257 * np.arange(255, -1, -1)).astype("<u2").tobytes()
        found = shown(pixels=IMAGE, VOILUTSequence=[table])
        assert np.array_equal(found, 255 - IMAGE)

    def test_a_matching_presentation_lut_inverts_once(self):
        tags = {"PresentationLUTShape": "INVERSE"}
        kind = {"PhotometricInterpretation": "MONOCHROME1"}
        assert np.array_equal(shown(pixels=IMAGE, **tags, **kind), 255 - IMAGE)

    def test_colour_keeps_its_order(self):
        colour = np.stack([IMAGE, IMAGE // 2, IMAGE // 4], axis=2)  # red first
        assert np.array_equal(shown(pixels=colour), colour[:, :, ::-1])

    def test_what_can_be_decompressed_is(self):
        assert np.array_equal(shown(syntax=RLELossless), stretched(DEEP))

    def test_one_grey_is_no_division_by_zero(self):
        assert not shown(pixels=DEEP * 0 + 7).any()


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"syntax": "1.2.840.10008.1.2.4.107"}, "no installed decoder reads"),
        ({"pixels": np.stack([DEEP] * 3), "NumberOfFrames": 3}, "of 3 frames"),
        ({"BurnedInAnnotation": "YES"}, "declares names burnt into its picture"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "of kind PALETTE COLOR"),
        ({"Rows": 65535, "Columns": 65535}, "declares 65535 x 65535 pixels"),
        ({"Rows": 50}, "cannot be decoded (ValueError)"),
        ({"Rows": None, "BitsStored": None}, "without Rows, BitsStored"),
        ({"BitsStored": 12, "HighBit": 15}, "with HighBit 15, expected 11"),
        ({"PresentationLUTShape": "INVERSE"}, "expected none or IDENTITY for MONO"),
        ({"PixelPaddingValue": 7, "pixels": DEEP * 0 + 7}, "nothing but padding"),
        ({"Rows": len(DEEP) // 2}, "is a DICOM file of more frames than it declares"),
    ],
)
def test_what_is_not_read_is_one_phrase(options, phrase):
    if "NumberOfFrames" in options:
        options = {**options, "Rows": 40, "Columns": 40, "SamplesPerPixel": 1}
        options["PhotometricInterpretation"] = "MONOCHROME2"
    with pytest.raises(UnreadableError) as error:
        shown(**options)
    assert phrase in str(error.value)
    assert str(error.value).startswith("is a DICOM file")
    assert NAME not in str(error.value)


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [0.4, 0.4]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.143, 0.143]}, (0.143, 0.143)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.4, 0.4]}, (0.4, 0.4)),
        ({"PixelSpacing": [0.2, -0.2]}, None),
        ({"PixelSpacing": [143, 143]}, None),
        ({"PixelSpacing": 0.2}, None),
        ({"PixelSpacing": ["", ""]}, None),
    ],
)
def test_the_spacing_of_pixels_is_the_first_plausible_one(tags, spacing):
    assert reader.read(dicom(**tags)).spacing == spacing


def test_text_for_a_spacing_is_none():
    encoded = dicom(PixelSpacing=[0.25, 0.25]).replace(b"0.25\\0.25 ", b"0.25\\wide ")
    assert b"wide" in encoded
    assert reader.read(encoded).spacing is None


def test_what_would_fill_the_memory_or_take_ages_is_not_decoded():
    deflated = dicom().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    with pytest.raises(UnreadableError, match="is a deflated DICOM file"):
        reader.read(deflated)
    scans = pydicom.dcmread(io.BytesIO(dicom(IMAGE)))
    scans.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    scans.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + b"\xff\xda" * 99])
    scans["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, scans)
    with pytest.raises(UnreadableError, match="of too many scans"):
        reader.read(buffer.getvalue())


def test_a_file_without_a_picture_or_cut_short_is_one_phrase():
    whole = dicom()
    for end in (132, 200, 400, len(whole) - 100):
        with pytest.raises(UnreadableError, match="is a DICOM file"):
            reader.read(whole[:end])


@pytest.fixture
def own(tmp_path, section):
    """Five films of two patients, two of them without an id."""
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for number, patient in enumerate(("P1", "P2", "P1", "", ""), start=1):
        image, mask = lungs(number)
        deep = dicom(image.astype(np.uint16) * 9, patient=patient)
        (tmp_path / "own" / "images" / f"film{number}.dcm").write_bytes(deep)
        (tmp_path / "own" / "masks" / f"film{number}.png").write_bytes(png(mask))
    place = str(tmp_path / "own")
    return section("ingest", source="folder", layout="pairs", folder=place)


def test_files_of_a_patient_are_a_group_and_name_nobody(own):
    found = list(folder.pairs(own))
    assert [pair.group for pair in found] == ["film1", "film2", "film1", "", ""]
    assert {(pair.image or b"")[:4] for pair in found} == {b"\x89PNG"}
    assert not any(pair.problem for pair in found)


def test_nothing_that_ingest_writes_or_logs_names_the_patient(own, tmp_path, caplog):
    # A broken date makes pydicom quote what it finds.
    path = tmp_path / "own" / "images" / "film1.dcm"
    spaced = dicom(PixelSpacing=[0.2, 0.1])
    path.write_bytes(spaced.replace(b"19640812", b"Geheim!!"))
    with caplog.at_level(logging.DEBUG):
        ingest(own)
    written = [p.read_bytes() for p in paths.DATA.rglob("*") if p.is_file()]
    secrets = (NAME, PATIENT, "Musterstadt", "Geheim", "19640812", "Mustermann")
    for secret in secrets:
        assert not any(secret.encode() in data for data in written)
        assert secret not in caplog.text
    stored = [pair for shard in shard_paths() for pair in read_shard(shard)]
    assert [pair.spacing for pair in stored] == [(0.2, 0.1), *[None] * 4]
    first = files.sha256(paths.INGESTED)
    ingest(own)
    assert files.sha256(paths.INGESTED) == first


@pytest.mark.parametrize("name", ["film1", "1.2.840.10008.7"])
def test_a_file_needs_no_suffix(own, tmp_path, name):
    folders = tmp_path / "own" / "images", tmp_path / "own" / "masks"
    (folders[0] / "film1.dcm").rename(folders[0] / name)
    (folders[1] / "film1.png").rename(folders[1] / f"{name}.png")
    found = {pair.pair_id: pair for pair in folder.pairs(own)}
    (pair_id,) = (key for key in found if key.endswith(name))
    assert found[pair_id].image
    assert found[pair_id].mask


def test_a_mask_that_is_dicom_and_a_broken_image_are_problems(own, tmp_path):
    (tmp_path / "own" / "masks" / "film2.png").write_bytes(dicom(MASK))
    (tmp_path / "own" / "images" / "film3.dcm").write_bytes(dicom()[:300])
    problems = [pair.problem for pair in folder.pairs(own)]
    assert problems[1] == "mask is a DICOM file; store it as PNG or TIFF"
    assert problems[2].startswith("image is a DICOM file")
    assert problems[0] == problems[3] == ""
