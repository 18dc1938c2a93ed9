"""NIfTI headers that lie, contradict themselves, or hold what the format leaves open."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import OBLIQUE, numbers, write_nifti


def volume(path: Path) -> VolumeCase:
    case = open_case(path)
    assert isinstance(case, VolumeCase)
    return case


def patched(path: Path, place: int, code: str, *values: float) -> Path:
    """Write numbers over the header of a file, packed or not."""
    packed = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into(f"<{code}", raw, place, *values)
    path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))
    return path


def test_a_unit_that_the_format_does_not_know_is_taken_as_mm(tmp_path: Path) -> None:
    path = patched(write_nifti(tmp_path / "image.nii", numbers((4, 5, 6))), 123, "B", 7)
    assert volume(path).slice_spacing(0) == pytest.approx((1.5, 1.0))


def test_a_qform_that_is_no_rotation_is_said_and_the_sform_followed(tmp_path: Path) -> None:
    path = patched(write_nifti(tmp_path / "image.nii", numbers((4, 5, 6))), 256, "3f", 9.0, 9.0, 9.0)
    case = volume(path)
    assert case.notices == ["the qform is not a rotation: the sform is followed"]
    assert np.array_equal(case.grid.affine, np.diag([1.0, 1.5, 4.0, 1.0]))
    with pytest.raises(CaseError, match=r"image\.nii: cannot be read as a NIfTI file"):
        open_case(patched(path, 254, "h", 0))


AFFINE = np.diag([1.0, 1.5, 4.0, 1.0])


@pytest.mark.parametrize("size", [3e242, 1e-300, 1e30])
def test_an_impossible_voxel_size_of_the_qform_leaves_a_mask_where_the_sform_puts_it(
    tmp_path: Path, size: float
) -> None:
    """Sizes of 1e242 are finite, and yet their squares are not, and no matrix with them can be inverted."""
    image = nib.Nifti2Image(numbers((4, 5, 6)), AFFINE)
    image.set_sform(AFFINE, code=2)
    image.set_qform(AFFINE, code=1)
    nib.save(image, tmp_path / "image.nii")
    case = volume(patched(tmp_path / "image.nii", 112, "d", size))
    assert np.allclose(case.grid.affine, AFFINE)
    mask = np.zeros((case.n_slices, *case.slice_shape(0)), np.uint8)
    mask[2, 1:3, 1:3] = 1
    case.write_mask(tmp_path / "mask.nii", lambda i: mask[i])
    assert np.array_equal(case.read_labels(tmp_path / "mask.nii")[2], mask[2])


def test_colours_are_never_scaled(tmp_path: Path) -> None:
    colours = numbers((4, 5, 6, 3), np.uint8)
    array = np.ascontiguousarray(colours).view([(name, "u1") for name in "RGB"])[..., 0]
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), tmp_path / "image.nii")
    case = volume(patched(tmp_path / "image.nii", 112, "2f", 2.0, -7.0))
    assert case.is_byte
    assert np.array_equal(case.slice(2), colours[:, :, 2].swapaxes(0, 1))


def test_a_scaling_beyond_float32_is_replaced_and_said(tmp_path: Path) -> None:
    array = numbers((2, 2, 2))
    path = patched(write_nifti(tmp_path / "image.nii", array), 112, "2f", 3e38, 0.0)
    case = volume(path)
    assert "6 voxels are NaN or infinite" in case.notices[0]  # of 0 to 7 only 0 and 1 stay below 3.4e38
    assert np.isfinite(case.slice(0)).all()
    assert np.array_equal(nib.load(path).dataobj.get_unscaled(), array)


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_header_that_claims_to_be_huge_is_refused(name: str, tmp_path: Path) -> None:
    path = patched(write_nifti(tmp_path / name, numbers((4, 5, 6))), 108, "f", 2.0**30)
    with pytest.raises(CaseError, match=r"image\.nii.* cut off"):
        open_case(path)


def test_what_follows_the_voxels_of_a_packed_file_is_ignored(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6)))
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(1000)))
    assert volume(path).n_slices == 6


@given(st.lists(st.integers(0, 832), max_size=4), st.integers(0, 9), st.integers(1, 400))
def test_a_packed_file_may_come_in_parts_and_must_be_whole(cuts: list[int], padding: int, missing: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_nifti(Path(folder) / "image.nii.gz", numbers((4, 5, 6)))
        raw, whole = gzip.decompress(path.read_bytes()), volume(path)
        ends = [*sorted(cuts), len(raw)]
        parts = [gzip.compress(raw[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        packed = bytes(padding).join(parts)
        path.write_bytes(packed + bytes(padding))
        case = volume(path)
        assert all(np.array_equal(case.slice(index), whole.slice(index)) for index in range(whole.n_slices))
        path.write_bytes(packed[: -min(missing, len(parts[-1]) - 1)])
        with pytest.raises(CaseError, match=r"image\.nii\.gz: .*(cut off|damaged)"):
            open_case(path)


def test_sizes_that_overflow_64_bits_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(numbers((4, 5, 6)), np.eye(4)), tmp_path / "image.nii")
    with pytest.raises(CaseError, match=r"image\.nii: the file is cut off"):
        open_case(patched(tmp_path / "image.nii", 24, "3q", 2**32, 2**32, 2**32))


@pytest.mark.parametrize(("place", "code", "value"), [(344, "4s", b"ni1\0"), (108, "f", 0)])
def test_half_of_a_pair_is_told(place: int, code: str, value: float, tmp_path: Path) -> None:
    path = patched(write_nifti(tmp_path / "image.nii", numbers((4, 5, 6))), place, code, value)
    with pytest.raises(CaseError, match=r"image\.nii: its header is one of a pair of files \(\.hdr and \.img\)"):
        open_case(path)


def test_cifti_is_told(tmp_path: Path) -> None:
    image = nib.Nifti2Image(numbers((1, 1, 1, 1, 3, 4), np.float32), None)
    image.header["intent_code"] = 3001
    nib.save(image, tmp_path / "image.nii")
    with pytest.raises(CaseError, match=r"image\.nii: this is a CIFTI file"):
        open_case(tmp_path / "image.nii")


def _placed(spacing: float, angles: tuple[float, float, float], shift: float) -> np.ndarray:
    turn = nib.eulerangles.euler2mat(*angles) @ OBLIQUE
    return nib.affines.from_matvec(turn @ np.diag([spacing, 1.0, 2.0]), [shift, -5.0, 3.0])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    angles=st.sampled_from([(0.0, 0.0, 0.0), (1e-7, 0.0, 0.0), (0.02, 0.0, 0.01), (0.0, 3.1, 0.0)]),
    shift=st.sampled_from([0.0, 1e-5, 0.1, -40.0]),
    version=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_mask_keeps_both_forms_of_its_image_and_a_contradiction_is_said(
    codes: tuple[int, int], angles: tuple[float, float, float], shift: float, version: type, suffix: str
) -> None:
    image = version(numbers((5, 6, 4)), None)
    image.header.set_xyzt_units("mm")
    image.set_qform(_placed(1.0, (0.0, 0.0, 0.0), 0.0), code=codes[0])
    image.set_sform(_placed(1.0, angles, shift), code=codes[1])
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, f"image{suffix}"), Path(folder, f"mask{suffix}")
        nib.save(image, path)
        case = volume(path)
        case.write_mask(out, lambda i: np.full(case.slice_shape(i), i + 1, np.uint8))
        saved, mask = nib.load(path), nib.load(out)
        assert np.array_equal(case.grid.affine, saved.affine)
        assert type(mask) is version
        for form in ("qform", "sform"):
            theirs, their_code = getattr(saved, f"get_{form}")(coded=True)
            ours, our_code = getattr(mask, f"get_{form}")(coded=True)
            assert our_code == their_code
            assert np.array_equal(ours, theirs) if theirs is not None else ours is None
        kept = ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z")
        assert all(np.array_equal(mask.header[key], saved.header[key]) for key in kept)
        apart = max(abs(shift), max(angles))
        said = any("qform and sform disagree" in notice for notice in case.notices)
        assert said == (min(codes) > 0 and apart > 1e-3)
        assert len(case.read_labels(out)) == case.n_slices
        assert np.array_equal(read_mask_volume(out)[1].affine, saved.affine)


def test_a_contradiction_between_the_first_and_the_last_corner_is_seen(tmp_path: Path) -> None:
    """Axes one and two swapped: the first and the last voxel of a square volume stay where they are."""
    path = write_nifti(tmp_path / "image.nii", numbers((5, 5, 4)), np.eye(4))
    image = nib.load(path)
    image.set_sform(np.eye(4)[[1, 0, 2, 3]], code=1)
    nib.save(image, tmp_path / "other.nii")
    assert volume(tmp_path / "other.nii").notices == [
        "qform and sform disagree by up to 5.66 mm: the sform is followed"
    ]


def test_a_contradiction_is_told_in_mm_whatever_the_unit_of_the_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers((5, 6, 4)), None)
    image.header.set_xyzt_units("meter")
    image.set_qform(np.diag([0.001, 0.001, 0.002, 1]), code=1)
    image.set_sform(nib.affines.from_matvec(np.diag([0.001, 0.001, 0.002]), [0.005, 0, 0]), code=1)
    nib.save(image, tmp_path / "image.nii")
    assert volume(tmp_path / "image.nii").notices == ["qform and sform disagree by up to 5 mm: the sform is followed"]
