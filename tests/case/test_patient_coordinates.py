"""A mask lies where its image lies, as another library sees it: SimpleITK, which computes places on its own, in LPS."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import Plane, VolumeCase, open_case
from tests.case.builders import numbers
from tests.case.test_geometry import ANGLES, ORIENTATIONS, affine_of

# ITK compares the directions of an axis with a tolerance; headers hold single precision.
CLOSE = 1e-3  # mm


def letter(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Voxels that no flip and no turn maps onto themselves: a corner, and along each axis an arm of its own length."""
    i, j, k = (n - 1 for n in shape)
    cells = {(0, 0, 0), (min(1, i), 0, 0), (0, min(1, j), 0), (0, min(2, j), 0)}
    return sorted(cells | {(0, 0, n) for n in range(1, min(3, k) + 1)})


def marked(shape: tuple[int, int, int]) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Voxels below 500, and the cells of the letter, which hold 1000 and up."""
    cells = letter(shape)
    array = (numbers(shape) % 500).astype(np.int16)
    for n, cell in enumerate(cells):
        array[cell] = 1000 + n
    return array, cells


def place_of(image: sitk.Image, value: int) -> np.ndarray:
    """The LPS place of the one voxel that holds a value."""
    (index,) = np.argwhere(sitk.GetArrayFromImage(image) == value)
    return np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index[::-1]]))


def round_trip(
    path: Path, out: Path, cells: list[tuple[int, int, int]], affine: np.ndarray, plane: Plane | None
) -> None:
    """Number the cells where they are seen in the slices, and look where the mask has the numbers."""
    case = open_case(path, plane=plane)
    assert isinstance(case, VolumeCase)
    case.write_mask(out, lambda i: np.maximum(case.slice(i) - 999, 0).astype(np.uint8))
    image, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert mask.GetSize() == image.GetSize()
    for n, cell in enumerate(cells):
        ours = place_of(mask, n + 1)
        assert np.allclose(ours, place_of(image, 1000 + n), atol=CLOSE)
        ras = affine[:3, :3] @ cell + affine[:3, 3]
        assert np.allclose(ours, ras * (-1, -1, 1), atol=CLOSE)
        shown = np.argwhere(np.stack([case.slice(i) for i in range(case.n_slices)]) == 1000 + n)[0]
        assert np.allclose(case.patient_position(*map(int, shown)), ras, atol=CLOSE)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(3, 6), st.integers(4, 7)),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.79, 1.0, 3.3))] * 3),
    angles=st.sampled_from(ANGLES),
    plane=st.sampled_from([None, *Plane]),
    suffix=st.sampled_from((".nii", ".nii.gz")),
)
def test_a_nifti_mask_lies_where_simpleitk_sees_the_image_in_all_48_orientations(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    plane: Plane | None,
    suffix: str,
) -> None:
    array, cells = marked(shape)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, f"image{suffix}"), Path(folder, f"mask{suffix}")
        for permutation, signs in ORIENTATIONS:
            affine = affine_of(permutation, signs, angles, spacing)
            image = nib.Nifti1Image(array, affine)
            image.set_sform(affine, code=1)
            image.set_qform(affine, code=1)
            nib.save(image, path)
            round_trip(path, out, cells, affine, plane)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(3, 6), st.integers(4, 7)),
    spacing=st.tuples(*[st.sampled_from((0.5, 0.79, 1.0, 3.3))] * 3),
    angles=st.sampled_from(ANGLES),
    space=st.sampled_from([("left-posterior-superior", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1))]),
    suffix=st.sampled_from((".nrrd", ".nii.gz")),
)
def test_a_mask_of_nrrd_lies_where_simpleitk_sees_the_image_in_all_48_orientations(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    angles: tuple[float, float, float],
    space: tuple[str, tuple[int, int, int]],
    suffix: str,
) -> None:
    """In the format of the image, and as NIfTI, whose axes run the other way."""
    array, cells = marked(shape)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "image.nrrd"), Path(folder, f"mask{suffix}")
        for permutation, signs in ORIENTATIONS:
            affine = affine_of(permutation, signs, angles, spacing)
            there = np.diag([*space[1], 1]) @ affine
            place = {"space": space[0], "space directions": there[:3, :3].T, "space origin": there[:3, 3]}
            nrrd.write(str(path), array, {**place, "kinds": ["domain"] * 3, "encoding": "raw"})
            round_trip(path, out, cells, affine, None)


@pytest.mark.parametrize("name", ["image.nii.gz", "image.nrrd"])
def test_what_simpleitk_wrote_is_seen_in_its_place(name: str, tmp_path: Path) -> None:
    array, cells = marked((4, 5, 6))
    affine = affine_of((1, 2, 0), (1, -1, -1), ANGLES[2], (0.5, 0.79, 3.3))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(sizes.tolist())
    image.SetDirection((lps[:3, :3] / sizes).reshape(-1).tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / name))
    for out in ("mask.nii.gz", "mask.nrrd"):
        round_trip(tmp_path / name, tmp_path / out, cells, affine, None)
