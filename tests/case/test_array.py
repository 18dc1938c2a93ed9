"""Arrays of image layers as cases: their masks come back voxel for voxel, and what is no volume is refused."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.case import Plane, case_from_array, open_case
from napari_dinoaugseg.errors import CaseError, Hint, LabelError, OutputError
from tests.case.builders import numbers

SPACING = (3.0, 0.7, 0.5)


def volume(shape: tuple[int, ...] = (5, 7, 9)) -> np.ndarray:
    return numbers(shape)


def labels_of(shape: tuple[int, ...], highest: int = 9) -> np.ndarray:
    return (np.arange(np.prod(shape)) % (highest + 1)).reshape(shape).astype(np.uint16)


def test_a_volume_is_shown_as_it_is():
    data = volume()
    case = case_from_array(data, spacing=SPACING, name="CT of the day")
    assert case.name == "CT of the day"
    assert (case.kind, case.plane, case.n_slices) == ("volume", Plane.NATIVE, 5)
    np.testing.assert_array_equal(case.display, data)
    assert case.display_scale == pytest.approx(SPACING)
    np.testing.assert_array_equal(case.slice(3), data[3].astype(np.float32))
    assert case.slice_spacing(0) == pytest.approx((0.7, 0.5))
    assert case.slice_distance == pytest.approx(3.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    spacing=st.one_of(st.none(), st.tuples(*[st.floats(0.1, 9)] * 3)),
    plane=st.sampled_from(list(Plane)),
)
def test_a_mask_comes_back_at_its_voxel(tmp_path, shape, spacing, plane):
    case = case_from_array(volume(shape), spacing=spacing, name="a", plane=plane)
    labels = labels_of(shape)
    axis = {Plane.CORONAL: 1, Plane.SAGITTAL: 2}.get(plane, 0)
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.moveaxis(labels, axis, 0)[i])
    image = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.transpose(2, 1, 0))
    np.testing.assert_allclose(image.header.get_zooms(), (spacing or (1, 1, 1))[::-1], rtol=1e-6)
    off_diagonal = image.affine[:3, :3][~np.eye(3, dtype=bool)]
    assert not off_diagonal.any()
    # Opened as a case of its own, it is shown as the layer was.
    np.testing.assert_array_equal(open_case(tmp_path / "mask.nii.gz").display, labels)
    if labels.any():
        read = case.read_labels(tmp_path / "mask.nii.gz", range(case.n_slices))
        np.testing.assert_array_equal(np.stack([read[i] for i in range(case.n_slices)]), np.moveaxis(labels, axis, 0))


def test_nrrd_says_the_voxel_size(tmp_path):
    case = case_from_array(volume(), spacing=SPACING)
    labels = labels_of((5, 7, 9))
    case.write_mask(tmp_path / "mask.nrrd", labels.__getitem__)
    data, header = nrrd.read(str(tmp_path / "mask.nrrd"))
    np.testing.assert_array_equal(data, labels.transpose(2, 1, 0))
    np.testing.assert_allclose(header["space directions"], np.diag(SPACING[::-1]))


def test_labels_above_255_are_kept(tmp_path):
    case = case_from_array(volume((2, 3, 4)), spacing=None)
    labels = labels_of((2, 3, 4), highest=300)
    labels[0, 0, 0] = 65534
    case.write_mask(tmp_path / "mask.nii.gz", labels.__getitem__)
    image = nib.load(tmp_path / "mask.nii.gz")
    assert image.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", [".png", ".nii.gz", ".nrrd"])
def test_the_mask_of_a_picture_is_two_dimensional(tmp_path, suffix):
    case = case_from_array(numbers((6, 8), np.uint8), spacing=(0.2, 0.3), name="skin")
    assert (case.n_slices, case.slice_shape(0)) == (1, (6, 8))
    path, labels = tmp_path / f"mask{suffix}", labels_of((6, 8), 3)
    case.check_output(path)
    case.write_mask(path, lambda _: labels)
    np.testing.assert_array_equal(case.read_labels(path)[0], labels)
    if suffix == ".png":
        np.testing.assert_array_equal(np.asarray(Image.open(path)), labels)
    elif suffix == ".nii.gz":
        assert nib.load(path).shape == (8, 6)


def test_the_confidence_of_a_picture_is_a_png_too(tmp_path):
    case = case_from_array(numbers((6, 8), np.uint8))
    case.write_confidence(tmp_path / "sure.png", lambda _: np.full((6, 8), 0.5, np.float32))
    assert set(np.asarray(Image.open(tmp_path / "sure.png")).reshape(-1)) == {128}


def test_a_volume_has_no_png(tmp_path):
    with pytest.raises(OutputError, match=r"\.nii\.gz"):
        case_from_array(volume()).check_output(tmp_path / "mask.png")


def test_a_mask_picture_of_another_size_is_refused(tmp_path):
    Image.fromarray(np.ones((5, 5), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(LabelError, match="5 x 5 pixels, but skin is 8 x 6"):
        case_from_array(numbers((6, 8), np.uint8), name="skin").read_labels(tmp_path / "mask.png")


def test_an_empty_mask_picture_teaches_nothing_unless_it_is_named(tmp_path):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "mask.png")
    case = case_from_array(numbers((6, 8), np.uint8))
    with pytest.raises(LabelError, match="background"):
        case.read_labels(tmp_path / "mask.png")
    assert not case.read_labels(tmp_path / "mask.png", [0])[0].any()


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (np.full((4, 5, 3), 200, np.uint8), 200),
        (np.full((4, 5, 4), 200, np.uint8), 200),
        (np.full((4, 5, 3), 0.5, np.float32), 128),
        (np.full((4, 5, 3), 0x8000, np.uint16), 128),
        (np.full((3, 4, 5, 3), 7, np.uint8), 7),
    ],
)
def test_colours_become_bytes(colours, expected):
    case = case_from_array(colours, is_rgb=True)
    assert case.is_colour
    assert case.slice(0).dtype == np.uint8
    assert case.slice(0).shape == (4, 5, 3)
    assert (case.slice(0) == expected).all()
    assert case.display.shape == (colours.shape[0] if colours.ndim == 4 else 1, 4, 5, 3)


def test_the_layer_is_never_written_to():
    data = volume().astype(np.float32)
    data[1, 2, 3] = np.nan
    case = case_from_array(data)
    assert np.isnan(data[1, 2, 3])
    assert np.isfinite(case.slice(1)).all()
    assert any("NaN" in notice for notice in case.notices)


def test_large_arrays_are_not_copied():
    data = volume((4, 50, 60))
    assert np.shares_memory(case_from_array(data).display, data)


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ([np.zeros((8, 8)), np.zeros((4, 4))], {}, "multiscale"),
        (np.zeros((3, 4, 5, 6)), {}, r"4 axes \(3 x 4 x 5 x 6\)"),
        (np.zeros((2, 3, 4, 5, 3), np.uint8), {"is_rgb": True}, "4 axes"),
        (np.zeros(9), {}, "1 axis"),
        (np.zeros((3, 4), np.complex64), {}, "complex"),
        (np.zeros((0, 4)), {}, "no pixels"),
        (np.zeros((3, 4), "U1"), {}, "no one intensity"),
        (np.full((3, 4), np.nan), {}, "NaN"),
        (np.zeros((3, 4, 5), np.uint8), {"is_rgb": True}, "3 or 4 channels"),
        (np.zeros((3, 4, 3), np.int32), {"is_rgb": True}, "int32"),
        (np.zeros((3, 4, 5)), {"spacing": (1, 1)}, "3 positive voxel sizes"),
        (np.zeros((3, 4, 5)), {"spacing": (1, 0, 1)}, "scale"),
    ],
)
def test_what_is_no_case_is_refused(data: Any, options: dict[str, Any], said: str):
    with pytest.raises(CaseError, match=said) as caught:
        case_from_array(data, name="layer 1", **options)
    assert str(caught.value).startswith("layer 1: ")


def test_of_a_layer_with_more_axes_the_person_is_sent_to_split_it():
    with pytest.raises(CaseError) as caught:
        case_from_array(np.zeros((3, 4, 5, 6)), name="layer 1")
    assert caught.value.hint is Hint.SPLIT_LAYER


def test_255_beside_other_labels_reads_back_from_a_png(tmp_path):
    case = case_from_array(numbers((12, 14), np.uint8))
    painted = np.full((12, 14), 255, np.uint16)
    painted[0, 0], painted[5] = 1, 0
    case.write_mask(tmp_path / "mask.png", lambda i: painted)
    assert np.array_equal(case.read_labels(tmp_path / "mask.png")[0], painted)
