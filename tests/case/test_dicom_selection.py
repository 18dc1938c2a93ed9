"""What lies beside the slices of a volume is left out by name; what cannot be told is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.labels import read_mask_volume
from napari_dinoaugseg.errors import CaseError, LabelError
from tests.case.builders import numbers, write_dicom
from tests.case.dicom_builders import write_object

VOLUME = numbers((6, 5, 6), np.uint16)
SERIES = "1.2.826.0.1.3680043.8.498.1"


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **{"plane": "native", **options})
    assert isinstance(case, VolumeCase)
    return case


def holds(case: VolumeCase, pixels: np.ndarray = VOLUME) -> bool:
    shown = [case.slice(k) for k in range(case.n_slices)]
    return np.array_equal(shown, pixels.astype(np.float32) - 1024)


def add(folder: Path, name: str, **values: Any) -> None:
    """Add one CT image to the series, changed in some attributes."""

    def change(_: int, dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    rows = values.get("Rows", 5)
    write_dicom(folder, numbers((1, rows, 6), np.uint16, seed=9), names=lambda _: name, change=change)


@pytest.mark.parametrize(
    "values",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "Rows": 9},
        # The same without the word.
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "Rows": 9},
        {"Rows": 9},
        {"PixelSpacing": [2, 2]},
    ],
)
def test_a_scout_in_the_series_is_left_out_by_name(values: dict[str, Any], tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)
    add(tmp_path / "ct", "scout.dcm", **values)
    case = volume(tmp_path / "ct")
    assert holds(case)
    (notice,) = case.notices
    assert "left out: scout.dcm" in notice
    assert tmp_path / "ct" / "scout.dcm" not in case._voxels.files


def test_a_localizer_is_left_out_of_a_series_with_a_gap_too(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)[2].unlink()
    add(tmp_path / "ct", "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=9)
    assert volume(tmp_path / "ct").n_slices == 5


def test_a_series_of_localizers_is_a_case(tmp_path: Path) -> None:
    def scout(_: int, dataset: pydicom.Dataset) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_dicom(tmp_path / "ct", VOLUME, change=scout)
    assert volume(tmp_path / "ct").notices == []


@pytest.mark.parametrize("colour", [True, False])
def test_a_screen_capture_in_the_series_is_left_out_by_name(colour: bool, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)
    pixels = numbers((5, 6, 3) if colour else (50, 60), np.uint8)
    write_object(tmp_path / "ct" / "dose.dcm", SecondaryCaptureImageStorage, "CT", pixels, SeriesInstanceUID=SERIES)
    case = volume(tmp_path / "ct")
    assert holds(case)
    assert case.notices == [
        "1 image without a place in the patient left out: dose.dcm (Secondary Capture Image)",
    ]


def test_copies_are_left_out_by_name(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "ct", VOLUME)
    shutil.copy(paths[3], tmp_path / "ct" / "IM003 (1).dcm")
    shutil.copytree(tmp_path / "ct", tmp_path / "ct" / "backup")
    case = volume(tmp_path / "ct")
    assert holds(case)
    assert case.notices[0].startswith("8 copies of images that are there left out: IM000.dcm")


def test_a_copy_that_was_stored_in_another_way_is_a_copy(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "ct", VOLUME)
    dataset = pydicom.dcmread(paths[2])
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "ct" / "IM002-packed.dcm")
    case = volume(tmp_path / "ct")
    assert holds(case)
    assert "1 copy of an image that is there left out: IM002-packed.dcm" in case.notices[0]


def test_files_that_call_themselves_the_same_but_differ_are_refused(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "ct", VOLUME)
    dataset = pydicom.dcmread(paths[2])
    dataset.PixelData = VOLUME[3].tobytes()
    dataset.save_as(tmp_path / "ct" / "other.dcm")
    with pytest.raises(CaseError, match=r"IM002\.dcm and .*other\.dcm call themselves the same image"):
        open_case(tmp_path / "ct")


def test_images_that_were_sent_twice_under_other_identifiers_are_taken_once(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)

    def again(k: int, dataset: pydicom.Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.88.{k}"

    write_dicom(tmp_path / "ct", VOLUME[:2], names=lambda k: f"again{k}.dcm", change=again)
    case = volume(tmp_path / "ct")
    assert holds(case)
    assert "2 copies of images that are there left out: again0.dcm, again1.dcm" in case.notices[0]


# --- one series for each slice -------------------------------------------------------------------------------------


def per_slice(folder: Path, **values: Any) -> None:
    def change(k: int, dataset: pydicom.Dataset) -> None:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = f"1.2.66.{k}", 4
        for keyword, value in values.items():
            setattr(dataset, keyword, value(k))

    write_dicom(folder, VOLUME, change=change)


def test_slices_with_a_series_each_are_joined(tmp_path: Path) -> None:
    per_slice(tmp_path / "mr")
    case = volume(tmp_path / "mr")
    assert holds(case)
    assert "6 series of one image each are joined" in case.notices[0]
    case.write_mask(tmp_path / "mask.dcm", lambda i: np.full((5, 6), 1, np.uint8))
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    found = {item.SeriesInstanceUID: len(item.ReferencedInstanceSequence) for item in seg.ReferencedSeriesSequence}
    assert found == {f"1.2.66.{k}": 1 for k in range(6)}
    assert all(labels.all() for labels in case.read_labels(tmp_path / "mask.dcm").values())


@pytest.mark.parametrize(
    "values",
    [
        {"FrameOfReferenceUID": lambda k: f"1.2.55.{k}"},
        {"SeriesNumber": lambda k: k + 1},
        {"SeriesNumber": lambda _: None},
        {"StudyInstanceUID": lambda k: f"1.2.44.{k}"},
    ],
)
def test_series_that_do_not_say_that_they_belong_together_are_not_joined(values: Any, tmp_path: Path) -> None:
    per_slice(tmp_path / "mr", **values)
    with pytest.raises(CaseError, match="it holds 6 series"):
        open_case(tmp_path / "mr")


# --- what is found in a folder -------------------------------------------------------------------------------------


def test_a_folder_is_walked_through_links_without_end(tmp_path: Path) -> None:
    write_dicom(tmp_path / "archive" / "series", VOLUME)
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "ct").symlink_to(tmp_path / "archive" / "series", target_is_directory=True)
    (tmp_path / "archive" / "series" / "up").symlink_to(tmp_path / "patient", target_is_directory=True)
    case = volume(tmp_path / "patient")
    assert holds(case)
    assert case.notices == []


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_preamble_are_found_in_a_folder(implicit: bool, tmp_path: Path) -> None:
    for path in write_dicom(tmp_path / "ct", VOLUME):
        dataset = pydicom.dcmread(path)
        dataset.preamble, dataset.file_meta = None, pydicom.dataset.FileMetaDataset()
        dataset.save_as(path.with_suffix(""), implicit_vr=implicit, little_endian=True)
        path.unlink()
    assert holds(volume(tmp_path / "ct"))


def test_what_only_looks_like_dicom_is_left_out_by_name(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)
    (tmp_path / "ct" / "table").write_bytes(b"\x08\x00\x05\x00\x04\x00\x00\x00abcd\x08\x00\x16\x00" + bytes(900))
    case = volume(tmp_path / "ct")
    assert case.notices == ["1 DICOM file without an image left out: table (it cannot be read as DICOM)"]


def test_images_of_other_formats_beside_the_series_are_named(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", VOLUME)
    (tmp_path / "ct" / "preview.jpg").write_bytes(b"\xff\xd8\xff")
    assert volume(tmp_path / "ct").notices == ["1 file beside the DICOM images left out: preview.jpg"]


# --- objects without pixels ----------------------------------------------------------------------------------------

OBJECTS = [
    ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "radiotherapy structure set"),
    ("1.2.840.10008.5.1.4.1.1.481.5", "RTPLAN", "radiotherapy plan"),
    ("1.2.840.10008.5.1.4.1.1.88.33", "SR", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.88.67", "SR", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.11.1", "PR", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.88.59", "KO", "key images"),
    ("1.2.840.10008.5.1.4.1.1.104.1", "DOC", "PDF document"),
    ("1.2.840.10008.5.1.4.1.1.9.1.1", "ECG", "waveform"),
    ("1.2.840.10008.5.1.4.1.1.66", "OT", "raw data"),
    ("1.2.840.10008.5.1.4.1.1.66.1", "REG", "registration"),
    ("1.2.840.10008.5.1.4.1.1.4.2", "MR", "spectroscopy"),
    ("1.3.12.2.1107.5.9.1", "SR", "structured report"),
]


@pytest.mark.parametrize(("kind", "modality", "words"), OBJECTS)
def test_an_object_without_an_image_is_called_by_its_name(kind: str, modality: str, words: str, tmp_path: Path) -> None:
    path = write_object(tmp_path / "object.dcm", kind, modality, None)
    with pytest.raises(CaseError, match=rf"object\.dcm: this is .*{words}"):
        open_case(path)
    write_dicom(tmp_path / "ct", VOLUME)
    path.rename(tmp_path / "ct" / "object.dcm")
    assert words in volume(tmp_path / "ct").notices[0]


@pytest.mark.parametrize(("kind", "modality", "words"), OBJECTS[1:11])
def test_an_object_that_is_no_labels_is_called_by_its_name(
    kind: str, modality: str, words: str, tmp_path: Path
) -> None:
    path = write_object(tmp_path / "object.dcm", kind, modality, None)
    write_dicom(tmp_path / "ct", VOLUME)
    for read in (volume(tmp_path / "ct").read_labels, read_mask_volume):
        with pytest.raises(LabelError, match=rf"object\.dcm: this is .*{words}.*, not labels"):
            read(path)


def test_contours_opened_as_an_image_are_called_labels(tmp_path: Path) -> None:
    path = write_object(tmp_path / "rs.dcm", OBJECTS[0][0], "RTSTRUCT", None)
    with pytest.raises(CaseError, match="Open the images that its contours were drawn on, and give it as labels"):
        open_case(path)


def test_a_video_is_not_called_damaged(tmp_path: Path) -> None:
    path = write_object(tmp_path / "endo.dcm", "1.2.840.10008.5.1.4.1.1.77.1.1.1", "ES", numbers((8, 9), np.uint8))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\1 film "])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.save_as(path)
    with pytest.raises(CaseError, match=r"endo\.dcm: this is a video \(MPEG-4.*Export its frames"):
        open_case(path)
