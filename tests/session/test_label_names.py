"""Names and colours of a label file become those of the classes, and leave again with the mask."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.evaluation import evaluate
from napari_dinoaugseg.session.labels import LabelClass, new_class
from tests.blobs import truth_voxels

MEANT = [Segment(1, "Tumour", "#e61a1a"), Segment(3, "Kidney left", "#1ae61a")]


@pytest.fixture
def labels(blob_files, tmp_path):
    """The truth as a segmentation with names and colours."""
    case = open_case(blob_files[0])
    assert isinstance(case, VolumeCase)
    slices = case.to_slices(truth_voxels())
    path = tmp_path / "truth.seg.nrrd"
    case.write_mask(path, lambda i: slices[i], MEANT)
    return path


def test_names_and_colours_become_those_of_the_classes_and_come_out_again(labels, new_session, tmp_path):
    session = new_session()
    session.labels.add_class()  # as the panel does; it has no name of its own yet
    session.load_labels(labels, [4, 8])
    assert session.labels.classes == (LabelClass(1, "Tumour", "#e61a1a"), LabelClass(3, "Kidney left", "#1ae61a"))
    session.export(tmp_path / "mask.seg.nrrd")
    read = session.case.read_labels(tmp_path / "mask.seg.nrrd")
    assert [(entry.number, entry.name, entry.colour) for entry in read.segments] == [
        (1, "Tumour", "#e61a1a"),
        (3, "Kidney left", "#1ae61a"),
    ]


def test_a_name_that_a_person_gave_stays_and_a_sentence_says_so(labels, new_session):
    said = []
    session = new_session(notify=said.append)
    session.labels.replace_classes([LabelClass(1, "Lesion", "#123456")])
    session.load_labels(labels, [4])
    assert session.labels.classes[0] == LabelClass(1, "Lesion", "#123456")
    assert said == ["Note: Class 1 keeps its name 'Lesion'; the label file calls it 'Tumour'."]


def test_notices_of_the_labels_are_said(blob_files, new_session, tmp_path):
    said = []
    session = new_session(notify=said.append)
    path = tmp_path / "white.nii.gz"
    session.case.write_mask(path, lambda i: np.full(session.case.slice_shape(i), 255 * (i == 3), np.uint8))
    session.load_labels(path)
    assert said == ["Note: The labels of white.nii.gz are 0 and 255: they are one class, and its number is 255."]


def test_labels_that_are_refused_change_no_class(labels, new_session, tmp_path):
    session = new_session()
    session.labels.replace_classes([new_class(1)])
    with pytest.raises(LabelError, match="65535"):
        session.take_labels({0: np.full(session.case.slice_shape(0), 65535, np.uint16)}, labels)
    assert session.labels.classes == (new_class(1),)


def test_a_mask_is_compared_with_a_truth_that_was_cut_to_its_labels(blob_files, tmp_path):
    import nibabel as nib

    truth = nib.load(blob_files[1])
    part = truth.slicer[4:36, 6:44, 1:15]
    nib.save(part, tmp_path / "part.nii.gz")
    for one, other in ((blob_files[1], tmp_path / "part.nii.gz"), (tmp_path / "part.nii.gz", blob_files[1])):
        result = evaluate(one, other)
        assert result.mean("dice") == 1.0
        assert result.slices == 16
        assert "begins at voxel (4, 6, 1)" in result.notices[0]


def test_loops_are_compared_frame_by_frame(tmp_path):
    import nibabel as nib

    masks = np.zeros((12, 12, 1, 3), np.uint8)
    masks[3:7, 3:7, 0, :2] = 1
    other = masks.copy()
    other[3:7, 3:7, 0, 1] = 0
    other[4:8, 3:7, 0, 1] = 1
    for name, array in (("a.nii", masks), ("b.nii", other)):
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 50.0, 1.0])), tmp_path / name)
    result = evaluate(tmp_path / "a.nii", tmp_path / "b.nii")
    assert (result.unit, result.slices) == ("px", 3)
    assert result.classes[1].dice == pytest.approx((1 + 0.75 + 1) / 3)
    assert result.classes[1].hd95 == pytest.approx(1 / 3)
