"""Masks with all classes or one, of the slices that were asked for."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.evaluation import evaluate
from napari_dinoaugseg.session.export import MANUAL_AND_ACCEPTED, MANUAL_ONLY, export_masks, planned_files
from napari_dinoaugseg.session.labels import Status
from napari_dinoaugseg.session.session import Session
from tests.blobs import AFFINE, truth_voxels
from tests.case.builders import numbers, write_dicom


@pytest.fixture
def session(new_session, blob_files):
    """Slices 4 and 8 painted, 9 accepted, 10 predicted."""
    session = new_session()
    session.load_labels(blob_files[1], (4, 8))
    truth = open_case(blob_files[1], plane="axial")
    for index in (9, 10):
        session.labels.set_prediction(index, truth.slice(index).astype(np.uint16), 0.9)
    session.labels.accept(9)
    return session


def labelled_slices(path) -> list[int]:
    voxels = np.asarray(nib.load(path).dataobj)
    return [k for k in range(voxels.shape[2]) if voxels[:, :, k].any()]


@pytest.mark.parametrize(
    ("include", "slices"), [(MANUAL_ONLY, [4, 8]), (MANUAL_AND_ACCEPTED, [4, 8, 9]), (None, [4, 8, 9, 10])]
)
def test_the_mask_holds_what_was_asked_for(session, tmp_path, include, slices):
    options = {} if include is None else {"include": include}
    assert export_masks(session, tmp_path / "mask.nii.gz", **options) == [tmp_path / "mask.nii.gz"]
    assert labelled_slices(tmp_path / "mask.nii.gz") == slices
    image = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(image.affine, AFFINE.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, slices], truth_voxels()[:, :, slices])


def test_one_file_per_class(session, tmp_path):
    session.labels.replace_classes(
        [
            type(entry)(entry.number, name, entry.colour)
            for entry, name in zip(session.labels.classes, ("Left / Ventricle", "Myocardium"), strict=True)
        ]
    )
    path = tmp_path / "mask.nii.gz"
    expected = [tmp_path / "mask_left-ventricle.nii.gz", tmp_path / "mask_myocardium.nii.gz"]
    assert planned_files(session, path, per_class=True) == expected
    assert not any(tmp_path.iterdir())
    assert export_masks(session, path, MANUAL_ONLY, per_class=True) == expected
    assert sorted(tmp_path.iterdir()) == expected
    for file, number in zip(expected, (1, 3), strict=True):
        np.testing.assert_array_equal(
            np.asarray(nib.load(file).dataobj)[:, :, [4, 8]], (truth_voxels() == number)[:, :, [4, 8]]
        )


def test_classes_of_one_name_get_their_number(session, tmp_path):
    session.labels.replace_classes([type(entry)(entry.number, "???", entry.colour) for entry in session.labels.classes])
    names = [path.name for path in planned_files(session, tmp_path / "a.b.nrrd", per_class=True)]
    assert names == ["a.b_class.nrrd", "a.b_class-3.nrrd"]


def test_without_a_class_there_is_no_file_per_class(new_session, tmp_path):
    with pytest.raises(OutputError, match="no class"):
        export_masks(new_session(), tmp_path / "mask.nii.gz", per_class=True)


def test_a_class_file_never_replaces_the_image(session, blob_files):
    image = blob_files[0]
    session.labels.rename_class(1, "class")
    path = image.with_name("image0.nii.gz")
    with pytest.raises(OutputError, match="overwrite an input"):
        planned_files(session, path, per_class=True)


def test_pictures_have_a_folder_for_each_class(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "in" / f"{name}.png")
    session = Session(open_case(tmp_path / "in"))
    session.labels.add_class("polyp")
    session.labels.add_class("tool")
    labels = np.zeros((6, 8), np.uint16)
    labels[0], labels[1] = 1, 2
    session.paint(1, labels)
    out = tmp_path / "out"
    assert planned_files(session, out) == [out / "a.png", out / "b.png"]
    export_masks(session, out)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "b.png")), labels)
    written = export_masks(session, out, per_class=True)
    assert written == [out / "polyp", out / "tool"]
    assert planned_files(session, out, per_class=True)[-1] == out / "tool" / "b.png"
    np.testing.assert_array_equal(np.asarray(Image.open(out / "tool" / "b.png")), 255 * (labels == 2))


@pytest.fixture
def dicom_session(tmp_path):
    """Three slices of a series: the first painted, the second predicted."""
    write_dicom(tmp_path / "ct", numbers((3, 6, 8), np.uint16))
    session = Session(open_case(tmp_path / "ct"))
    session.labels.add_class("Liver", number=4)
    session.labels.add_class("Spleen", number=9)
    labels = np.zeros((6, 8), np.uint16)
    labels[0, :3], labels[2:, 5] = 4, 9
    session.paint(0, labels)
    session.labels.set_prediction(1, labels[::-1].copy(), 0.9)
    return session


@pytest.mark.parametrize(("include", "method"), [(MANUAL_ONLY, "MANUAL"), (None, "SEMIAUTOMATIC")])
def test_a_dicom_segmentation_has_the_names_of_the_classes(dicom_session, tmp_path, include, method):
    path = tmp_path / "mask.dcm"
    options = {} if include is None else {"include": include}
    assert export_masks(dicom_session, path, **options) == [path]
    liver, spleen = pydicom.dcmread(path).SegmentSequence
    assert (liver.SegmentLabel, spleen.SegmentLabel) == ("Liver", "Spleen")
    assert [segment.SegmentAlgorithmType for segment in (liver, spleen)] == [method] * 2
    read = dicom_session.case.read_labels(path, range(3))
    wanted = (Status.MANUAL,) if include else (Status.MANUAL, Status.PREDICTED)
    for index in range(3):
        np.testing.assert_array_equal(read[index], dicom_session.labels.result(index, wanted))
    again = Session(dicom_session.case)
    again.load_labels(path)
    assert [entry.number for entry in again.labels.classes] == [4, 9]


def test_a_dicom_segmentation_of_each_class(dicom_session, tmp_path):
    written = export_masks(dicom_session, tmp_path / "mask.dcm", per_class=True)
    assert [path.name for path in written] == ["mask_liver.dcm", "mask_spleen.dcm"]
    for path, name, number in zip(written, ("Liver", "Spleen"), (4, 9), strict=True):
        assert [segment.SegmentLabel for segment in pydicom.dcmread(path).SegmentSequence] == [name]
        inside = dicom_session.case.read_labels(path, [0])[0]
        np.testing.assert_array_equal(inside, dicom_session.labels.result(0, MANUAL_ONLY) == number)


def test_a_case_that_is_no_dicom_series_has_no_dicom_segmentation(session, tmp_path):
    with pytest.raises(OutputError, match=r"mask\.dcm: a DICOM SEG refers to the DICOM images"):
        planned_files(session, tmp_path / "mask.dcm")
    assert not any(tmp_path.iterdir())


def test_two_dicom_segmentations_are_evaluated(dicom_session, tmp_path):
    for name, include in (("hand", MANUAL_ONLY), ("all", (Status.MANUAL, Status.PREDICTED))):
        export_masks(dicom_session, tmp_path / f"{name}.dcm", include)
    result = evaluate(tmp_path / "hand.dcm", tmp_path / "hand.dcm")
    assert {number: entry.dice for number, entry in result.classes.items()} == {4: 1.0, 9: 1.0}
