"""The law of the house: what comes in one geometry leaves in exactly that geometry."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import Grid, Plane, VolumeCase, align, case_from_array, open_case
from napari_dinoaugseg.case.geometry import Layout, finest_plane
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import numbers, write_nifti

ORIENTATIONS = [
    (permutation, signs)
    for permutation in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
ANGLES = ((0.0, 0.0, 0.0), (0.05, -0.02, 0.03), (0.2, 0.25, -0.3), (-0.4, 0.1, 0.35))


def affine_of(
    permutation: tuple[int, ...], signs: tuple[int, ...], angles: tuple[float, ...], spacing: tuple[float, ...]
) -> np.ndarray:
    axes = np.zeros((3, 3))
    for n, (world, sign) in enumerate(zip(permutation, signs, strict=True)):
        axes[world, n] = sign * spacing[n]
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) @ axes
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.79, 1.0, 3.3))] * 3),
    suffix=st.sampled_from((".nii", ".nii.gz")),
    seed=st.integers(0, 1000),
)
def test_a_mask_has_the_geometry_of_its_image_in_all_48_orientations(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], suffix: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        # Every example goes through all orientations, each with an obliquity, codes and a plane of its own.
        for permutation, signs in ORIENTATIONS:
            affine = affine_of(permutation, signs, ANGLES[rng.integers(len(ANGLES))], spacing)
            codes, plane = rng.integers(0, 5, 2).tolist(), [None, *Plane][rng.integers(1 + len(Plane))]
            image = nib.Nifti1Image(numbers(shape, seed=seed), affine)
            image.set_sform(affine, code=codes[0])
            image.set_qform(affine, code=codes[1])
            path, out = Path(folder, f"image{suffix}"), Path(folder, f"mask{suffix}")
            nib.save(image, path)
            case = open_case(path, plane=plane)
            truth = rng.integers(0, 5, shape).astype(np.uint8)
            slices = case.to_slices(truth)
            case.write_mask(out, lambda i, slices=slices: slices[i])

            saved, mask = nib.load(path), nib.load(out)
            assert mask.shape == saved.shape
            assert np.array_equal(mask.affine, saved.affine)
            for key in ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "xyzt_units"):
                assert np.array_equal(mask.header[key], saved.header[key]), key
            for key in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
                assert np.array_equal(mask.header[key], saved.header[key]), key
            assert mask.header.get_zooms() == saved.header.get_zooms()
            assert np.array_equal(np.asarray(mask.dataobj), truth)
            labels = case.read_labels(out, range(case.n_slices))
            assert all(np.array_equal(labels[i], slices[i]) for i in labels)


@pytest.mark.parametrize("plane", list(Plane))
@pytest.mark.parametrize("angles", ANGLES)
def test_restore_inverts_to_slices(plane: Plane, angles: tuple[float, ...]) -> None:
    for permutation, signs in ORIENTATIONS:
        grid = Grid((3, 4, 5), affine_of(permutation, signs, angles, (1.0, 2.0, 3.0)))
        layout = (Layout.native() if plane is Plane.NATIVE else Layout.display(grid)).sliced(plane)
        native = numbers((3, 4, 5))
        assert np.array_equal(layout.invert(layout.apply(native)), native)
        assert layout.apply(native).base is native  # reordered, never copied


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_display_runs_to_left_posterior_superior(
    permutation: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    """A voxel further to the patient's left, back and head lies further right, down and on in the stack."""
    affine = affine_of(permutation, signs, (0.1, -0.1, 0.1), (1.0, 1.0, 1.0))
    shape = (4, 5, 6)
    world = np.tensordot(affine[:3, :3], np.indices(shape), axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)
    display = Layout.display(Grid(shape, affine))
    left, back, head = (display.apply(part) for part in (-world[0], -world[1], world[2]))
    assert (np.diff(head, axis=0) > 0).all()
    assert (np.diff(back, axis=1) > 0).all()
    assert (np.diff(left, axis=2) > 0).all()


def test_planes_cut_the_display_along_its_axes(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii.gz", numbers((3, 4, 5)))
    axial, coronal, sagittal = (open_case(path, plane=plane) for plane in ("axial", "coronal", "sagittal"))
    assert isinstance(axial, VolumeCase)
    assert axial.display.shape == (5, 4, 3)
    assert axial.display_scale == (4.0, 1.5, 1.0)
    assert np.array_equal(axial.slice(2), axial.display[2])
    assert np.array_equal(coronal.slice(2), axial.display[:, 2])
    assert np.array_equal(sagittal.slice(2), axial.display[:, :, 2])
    assert (axial.slice_spacing(0), axial.slice_distance) == ((1.5, 1.0), 4.0)
    assert (coronal.slice_spacing(0), coronal.slice_distance) == ((4.0, 1.0), 1.5)
    assert (sagittal.slice_spacing(0), sagittal.slice_distance) == ((4.0, 1.5), 1.0)


def test_native_slices_follow_the_stored_third_axis_without_flips(tmp_path: Path) -> None:
    array = numbers((3, 4, 5))
    path = write_nifti(tmp_path / "image.nii.gz", array, affine_of((2, 0, 1), (-1, 1, -1), (0, 0, 0), (1, 2, 3)))
    case = open_case(path, plane="native")
    assert case.n_slices == 5
    assert np.array_equal(case.slice(3), array[:, :, 3].T)
    assert case.slice_spacing(0) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((0.8, 0.8, 5.0), (10, 10, 10), Plane.AXIAL),
        ((0.8, 5.0, 0.8), (10, 10, 10), Plane.CORONAL),
        ((5.0, 0.8, 0.8), (10, 10, 10), Plane.SAGITTAL),
        ((1.0, 1.0, 1.0), (10, 10, 10), Plane.AXIAL),
        ((1.0, 1.0001, 1.0), (10, 10, 10), Plane.AXIAL),
        ((1.0, 1.0, 1.0), (10, 1, 10), Plane.CORONAL),
        ((1.0, 1.0, 1.0), (1, 10, 10), Plane.SAGITTAL),
    ],
)
def test_the_plane_with_the_smallest_pixels_is_taken(
    spacing: tuple[float, ...], shape: tuple[int, int, int], expected: Plane
) -> None:
    assert finest_plane(Grid(shape, np.diag([*spacing, 1.0]))) is expected


@pytest.mark.parametrize("angles", ANGLES)
def test_a_mask_in_another_array_order_is_aligned(angles: tuple[float, ...]) -> None:
    image = Grid((4, 5, 6), affine_of((0, 1, 2), (1, 1, 1), angles, (0.7, 0.9, 3.0)))
    mask = numbers((4, 5, 6))
    for orientation in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        ornt = np.array(list(zip(*orientation, strict=True)), dtype=float)
        turned = nib.orientations.apply_orientation(mask, ornt)
        affine = image.affine @ nib.orientations.inv_ornt_aff(ornt, mask.shape)
        assert np.array_equal(align(turned, Grid(turned.shape, affine), image), mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a + np.array([[0, 0, 0, 0.4], [0] * 4, [0] * 4, [0] * 4]), "apart"),
        (lambda a: a @ np.diag([1.02, 1, 1, 1]), "affine"),
        (lambda a: a @ np.diag([2.0, 1, 1, 1]), "affine"),
        (lambda a: nib.affines.from_matvec(nib.eulerangles.euler2mat(0.02)) @ a, "affine"),
        (lambda a: np.zeros((4, 4)) + np.diag([5.0, 5, 5, 1]), "affine"),
    ],
)
def test_a_mask_in_another_place_is_refused(change: object, message: str) -> None:
    image = Grid((20, 20, 20), np.diag([0.7, 0.9, 3.0, 1.0]))
    with pytest.raises(LabelError, match=message):
        align(numbers((20, 20, 20)), Grid((20, 20, 20), change(image.affine)), image)  # type: ignore[operator]


def test_rounding_in_a_header_is_no_other_place() -> None:
    image = Grid((512, 512, 300), affine_of((0, 1, 2), (-1, -1, 1), (0.1, 0.2, 0.3), (0.78, 0.78, 1.25)))
    rounded = Grid(image.shape, image.affine.astype(np.float32).astype(float))
    assert align(np.zeros(image.shape, np.uint8), rounded, image).shape == image.shape


def test_a_mask_of_another_shape_is_refused() -> None:
    grid = Grid((4, 5, 6), np.eye(4))
    with pytest.raises(LabelError, match="4 x 5 x 7 voxels, the image 4 x 5 x 6"):
        align(numbers((4, 5, 7)), Grid((4, 5, 7), np.eye(4)), grid)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["u1", "i1", ">i2", "u2", "i4", "u4", "i8", "f2", "f4", ">f8"]),
    low=st.sampled_from([0, -1, -40000, 2**31]),
    scale=st.sampled_from([(1.0, 0.0), (1.0, -1024.0), (2.0, 0.0), (0.5, 0.25), (-1.0, 3.0)]),
)
def test_values_are_written_without_loss(kind: str, low: int, scale: tuple[float, float]) -> None:
    dtype = np.dtype(kind)
    limits = np.iinfo(dtype) if dtype.kind != "f" else np.finfo(np.float16)
    first = float(np.clip(low, limits.min, limits.max - 40))
    stored = (np.arange(24).reshape(2, 3, 4) + first).astype(dtype)
    case = case_from_array(stored)
    voxels = case._voxels
    voxels.slope, voxels.intercept = scale
    exact = voxels.exact()
    assert exact.dtype.isnative
    assert exact.dtype.name in ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
    expected = voxels.stored.astype(np.float64) * scale[0] + scale[1]
    if exact.dtype == np.float32 and scale != (1.0, 0.0):
        expected = expected.astype(np.float32)  # as `Voxels.values` defines them
    np.testing.assert_array_equal(exact.astype(np.float64), expected)


def test_more_digits_than_a_float32_has_are_kept() -> None:
    case = case_from_array(np.full((2, 3, 4), 0.1))
    assert case._voxels.exact().dtype == np.float64
    assert case_from_array(np.full((2, 3, 4), 0.5))._voxels.exact().dtype == np.float32
