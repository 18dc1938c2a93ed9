"""Headers that contradict themselves, as ITK reads them: a mask lies where ITK sees its image, in every format."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import VolumeCase, open_case
from tests.case.builders import OBLIQUE, numbers

SHAPE = (4, 5, 6)
SIZES = (0.8, 0.7, 2.5)
STRAIGHT = nib.affines.from_matvec(np.diag([-0.8, -0.7, 2.5]), [20.0, 15.0, -30.0])
TURNED = nib.affines.from_matvec(OBLIQUE @ np.diag([0.8, -0.7, 2.5]), [3.0, -4.0, 5.0])
MIRRORED = nib.affines.from_matvec(np.diag([-0.8, 0.7, 2.5]), [20.0, 12.2, -30.0])
FAR = nib.affines.from_matvec(np.diag([-0.8, -0.7, 2.5]), [25.0, 15.0, -30.0])
LABELS = (numbers(SHAPE) % 4).astype(np.uint8)


@pytest.fixture(autouse=True)
def _silent_itk() -> None:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


def volume(path: Path) -> VolumeCase:
    case = open_case(path)
    assert isinstance(case, VolumeCase)
    return case


def write_mask(case: VolumeCase, path: Path) -> sitk.Image:
    slices = case.to_slices(LABELS)
    case.write_mask(path, lambda i: slices[i])
    return sitk.ReadImage(str(path))


def require_one_place(image: sitk.Image, mask: sitk.Image) -> None:
    assert mask.GetSize() == image.GetSize()
    assert np.allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-4)
    assert np.allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-3)
    assert np.allclose(mask.GetDirection(), image.GetDirection(), atol=1e-4)


def require_labels(case: VolumeCase, path: Path) -> None:
    expected = case.to_slices(LABELS)
    read = case.read_labels(path, range(case.n_slices))
    assert all(np.array_equal(read[i], expected[i]) for i in read)


def painted_in_itk(image: sitk.Image, path: Path) -> Path:
    """Labels of a program that reads the image with ITK."""
    labels = sitk.GetImageFromArray(LABELS.transpose(2, 1, 0))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(path))
    return path


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    forms=st.tuples(*[st.sampled_from([STRAIGHT, TURNED, MIRRORED, FAR])] * 2),
    codes=st.tuples(*[st.sampled_from([0, 1, 2, 4])] * 2),
    unit=st.sampled_from(["mm", "micron", "meter", None]),
    signs=st.sampled_from([(1, 1, 1), (1, 1, 1), (-1, 1, 1), (1, -1, -1), (0, 1, 1), (1, 1, 3)]),
)
def test_a_mask_of_any_nifti_header_lies_where_itk_sees_the_image_and_labels_from_itk_fit(
    forms: tuple[np.ndarray, np.ndarray],
    codes: tuple[int, int],
    unit: str | None,
    signs: tuple[int, int, int],
) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), None)
    if unit is not None:
        image.header.set_xyzt_units(unit)
    image.set_qform(forms[0], codes[0])
    image.set_sform(forms[1], codes[1])
    image.header["pixdim"][1:4] = SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nib.save(image, folder / "image.nii")
        raw = bytearray((folder / "image.nii").read_bytes())
        struct.pack_into("<3f", raw, 80, *np.multiply(signs, SIZES))
        (folder / "image.nii").write_bytes(raw)
        seen = sitk.ReadImage(str(folder / "image.nii"))
        case = volume(folder / "image.nii")
        for out in ("mask.nii.gz", "mask.nrrd"):
            require_one_place(seen, write_mask(case, folder / out))
            require_labels(case, folder / out)
            require_labels(case, painted_in_itk(seen, folder / f"itk_{out}"))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    space=st.sampled_from(["LPS", "RAS", "las", "left-posterior-superior", "scanner-xyz", None]),
    unit=st.sampled_from([None, "mm", "um", "\u00b5m", "microns", "cm", "m", "inch", "???", "furlong"]),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    begins=st.sampled_from([None, (1.0, -2.0, 3.0)]),
    centering=st.sampled_from([None, "cell", "node"]),
)
def test_a_mask_of_any_nrrd_header_lies_where_itk_sees_the_image_and_labels_from_itk_fit(
    space: str | None,
    unit: str | None,
    signs: tuple[int, int, int],
    begins: tuple[float, float, float] | None,
    centering: str | None,
) -> None:
    sizes = np.multiply(signs, SIZES)
    fields: dict[str, object] = {}
    if space is None:
        fields["spacings"] = sizes
        if begins is not None:
            fields["axis mins"] = begins
        if centering is not None:
            fields["centerings"] = [centering] * 3
    else:
        fields |= {"space": space, "space directions": (OBLIQUE @ np.diag(sizes)).T, "space origin": np.arange(3.0)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nrrd.write(str(folder / "image.nrrd"), numbers(SHAPE), fields)
        if unit is not None:
            head, _, data = (folder / "image.nrrd").read_bytes().partition(b"\n\n")
            line = f"{'units' if space is None else 'space units'}: " + " ".join([f'"{unit}"'] * 3)
            (folder / "image.nrrd").write_bytes(head + b"\n" + line.encode() + b"\n\n" + data)
        seen = sitk.ReadImage(str(folder / "image.nrrd"))
        case = volume(folder / "image.nrrd")
        millimetres = {"um": 1e-3, "\u00b5m": 1e-3, "microns": 1e-3, "cm": 10.0, "m": 1000.0, "inch": 25.4}.get(
            unit or "", 1.0
        )
        assert np.allclose(case.grid.spacing, np.multiply(SIZES, millimetres))
        assert any("unit of length" in notice for notice in case.notices) == (millimetres != 1.0)
        assert any("'furlong', which is not a length" in notice for notice in case.notices) == (unit == "furlong")
        for out in ("mask.nii.gz", "mask.nrrd"):
            require_one_place(seen, write_mask(case, folder / out))
            require_labels(case, folder / out)
            require_labels(case, painted_in_itk(seen, folder / f"itk_{out}"))


@pytest.mark.parametrize(("unit", "spacing"), [("micron", 0.025), ("meter", 25000.0), ("mm", 25.0)])
def test_the_unit_of_a_nifti_file_holds_wherever_its_geometry_is_used(
    unit: str, spacing: float, tmp_path: Path
) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), np.diag([-25.0, -25.0, 50.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "image.nii.gz")
    case = volume(tmp_path / "image.nii.gz")
    assert case.slice_spacing(0) == pytest.approx((spacing, spacing))
    assert case.slice_distance == pytest.approx(2 * spacing)
    require_labels(case, painted_in_itk(sitk.ReadImage(str(tmp_path / "image.nii.gz")), tmp_path / "labels.nii.gz"))
    require_one_place(sitk.ReadImage(str(tmp_path / "image.nii.gz")), write_mask(case, tmp_path / "mask.nrrd"))
    require_labels(case, tmp_path / "mask.nrrd")


def test_negative_voxel_sizes_are_kept_in_the_mask_and_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), STRAIGHT)
    nib.save(image, tmp_path / "image.nii")
    raw = bytearray((tmp_path / "image.nii").read_bytes())
    struct.pack_into("<f", raw, 80, -0.8)
    (tmp_path / "image.nii").write_bytes(raw)
    case = volume(tmp_path / "image.nii")
    assert "voxel sizes in the header are negative (-0.8 x 0.7 x 2.5)" in case.notices[0]
    write_mask(case, tmp_path / "mask.nii")
    assert struct.unpack_from("<f", (tmp_path / "mask.nii").read_bytes(), 80) == (np.float32(-0.8),)
    assert capfd.readouterr() == ("", "")  # no line of nibabel's


def test_voxel_sizes_that_are_not_those_of_the_sform_are_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), STRAIGHT)
    image.set_qform(None, 0)
    image.header["pixdim"][3] = 5.0
    nib.save(image, tmp_path / "image.nii")
    (notice,) = volume(tmp_path / "image.nii").notices
    assert "voxel sizes in the header are not those of the affine (0.8 x 0.7 x 2.5 mm)" in notice
    assert "ITK and 3D Slicer see voxels of 0.8 x 0.7 x 5 mm" in notice


def test_a_form_with_a_code_of_its_own_is_used(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(SHAPE), STRAIGHT)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "image.nii")
    raw = bytearray((tmp_path / "image.nii").read_bytes())
    struct.pack_into("<h", raw, 254, 17)
    (tmp_path / "image.nii").write_bytes(raw)
    case = volume(tmp_path / "image.nii")
    assert np.allclose(case.grid.affine, STRAIGHT)
    assert case.notices == []
    write_mask(case, tmp_path / "mask.nii")
    assert struct.unpack_from("<h", (tmp_path / "mask.nii").read_bytes(), 254) == (17,)
