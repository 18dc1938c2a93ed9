"""Headers in which something is missing or odd: opened where that does no harm, refused by name where it does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError, SeveralSeriesError
from tests.case.builders import numbers, write_dicom

VOLUME = numbers((4, 5, 6), np.uint16)
Change = Callable[[int, pydicom.Dataset], None]


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


def without(*keywords: str) -> Change:
    def change(_: int, dataset: pydicom.Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return change


def with_raw(keyword: str, value: bytes) -> Change:
    """Put bytes into a header that pydicom would not write for us."""

    def change(_: int, dataset: pydicom.Dataset) -> None:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        setattr(dataset, keyword, None)
        element = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), dataset[tag].VR, len(value), value, 0, False, True
        )
        dataset._dict[pydicom.tag.Tag(tag)] = element

    return change


def private(_: int, dataset: pydicom.Dataset) -> None:
    block = dataset.private_block(0x0029, "SCANNER", create=True)
    block.add_new(0x01, "OB", b"\x00\xff" * 7)
    block.add_new(0x02, "UN", b"anything at all")


@pytest.mark.parametrize(
    "change",
    [
        without("SliceThickness"),
        without("PatientName", "PatientID"),
        without("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
        without("SeriesDescription", "InstanceNumber"),
        private,
        # None of these is needed, so none may stop a case from opening.
        with_raw("SliceThickness", b"thick "),
        with_raw("InstanceNumber", b"one "),
        with_raw("EchoTime", b"1.2.3.4 "),
        with_raw("SeriesDescription", b"\xff\xfe\x1b[31mred\x00 "),
        with_raw("TriggerTime", b"nan "),
    ],
)
def test_what_is_not_needed_may_be_missing_or_broken(change: Change, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, change=change)
    case = volume(tmp_path / "ct", plane="native")
    assert all(np.array_equal(case.slice(k), VOLUME[k].astype(np.float32) - 1024) for k in range(4))
    assert case.grid.spacing == pytest.approx((0.5, 0.8, 3.0))


def test_one_slice_takes_its_thickness_from_the_distance_of_slices_first(tmp_path: Path) -> None:
    def spaced(_: int, dataset: pydicom.Dataset) -> None:
        dataset.SpacingBetweenSlices = 2.5

    assert volume(write_dicom(tmp_path / "a", VOLUME[:1], change=spaced)[0]).slice_distance == pytest.approx(2.5)
    thin = volume(write_dicom(tmp_path / "b", VOLUME[:1], change=without("SliceThickness"))[0])
    assert thin.slice_distance == pytest.approx(1.0)
    assert thin.notices == ["the slice thickness is unknown: 1 mm is assumed"]


@pytest.mark.parametrize("value", [b"", b"0.8 ", b"0.8\\x ", b"0.8\\0.5\\1 ", b"0.8\\inf "])
def test_a_pixel_spacing_that_says_nothing_is_refused(value: bytes, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, change=with_raw("PixelSpacing", value))
    with pytest.raises(CaseError, match=r"IM00\d\.dcm: it has no usable PixelSpacing"):
        open_case(tmp_path / "ct")


def test_files_without_a_series_are_a_series_of_their_own(tmp_path: Path) -> None:
    write_dicom(tmp_path / "both" / "a", VOLUME)
    write_dicom(tmp_path / "both" / "b", VOLUME[:2], change=without("SeriesInstanceUID"))
    with pytest.raises(SeveralSeriesError) as caught:
        open_case(tmp_path / "both")
    assert [series.slices for series in caught.value.series] == [2, 4]


def test_a_description_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    for n, name in enumerate(("a", "b")):
        change = with_raw("SeriesDescription", b"\x1b[31mred\r\nline ")
        write_dicom(tmp_path / "both" / name, VOLUME, series_uid=f"1.2.{n}", change=change)
    with pytest.raises(SeveralSeriesError) as caught:
        open_case(tmp_path / "both")
    assert str(caught.value).isprintable()


def test_a_scaling_that_is_no_number_is_none(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, change=with_raw("RescaleSlope", b"steep "), intercept=0)
    assert np.array_equal(volume(tmp_path / "ct", plane="native").slice(1), VOLUME[1].astype(np.float32))


def test_a_scaling_beyond_all_integers_gives_real_numbers(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME, slope=1e15, intercept=0)
    assert np.allclose(volume(tmp_path / "ct", plane="native").slice(1), VOLUME[1] * 1e15)


@pytest.mark.parametrize("keyword", [b"\x20\x00\x0e\x00", b"\x08\x00\x60\x00"])
def test_a_length_beyond_the_end_asks_for_no_memory(keyword: bytes, tmp_path: Path) -> None:
    """A damaged length of four bytes can claim 4 GiB."""
    path = write_dicom(tmp_path / "ct", VOLUME[:1])[0]
    data = path.read_bytes()
    start = data.index(keyword)
    path.write_bytes(data[: start + 4] + b"OB\x00\x00\xf0\xff\xff\xff" + data[start + 8 :])
    tracemalloc.start()
    with pytest.raises(CaseError, match=r"IM000\.dcm"):
        open_case(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_file_without_meta_information_is_decoded_as_it_was_parsed(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "ct", VOLUME[:1])[0]
    bare = tmp_path / "bare.dcm"
    dataset = pydicom.dcmread(path)
    dataset.preamble, dataset.file_meta = None, pydicom.dataset.FileMetaDataset()
    dataset.save_as(bare, implicit_vr=True, little_endian=True)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(volume(bare).slice(0), VOLUME[0].astype(np.float32) - 1024)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("colour", [False, True])
def test_lossless_jpeg_is_decoded_exactly(syntax: str, colour: bool, tmp_path: Path) -> None:
    pixels = numbers((16, 24, 3) if colour else (16, 24), np.uint8 if colour else np.uint16)

    def compress(_: int, dataset: pydicom.Dataset) -> None:
        options = {"colorspace": "RGB", "outcolorspace": "RGB"} if colour else {"bitspersample": 16}
        stream = imagecodecs.jpeg_encode(pixels, lossless=True, **options)
        if colour:
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.RescaleIntercept = 0
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True

    first = pixels[..., 0].astype(np.uint16) if colour else pixels
    path = write_dicom(tmp_path / "ct", first[np.newaxis], change=compress)[0]
    assert np.array_equal(volume(path, plane="native").slice(0), pixels)
