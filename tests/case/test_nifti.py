"""NIfTI in every type that scanners and tools write."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import Plane, VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError, Hint
from tests.case.builders import listing, numbers, write_nifti


def volume(path: Path, **options: object) -> VolumeCase:
    case = open_case(path, **options)  # type: ignore[arg-type]
    assert isinstance(case, VolumeCase)
    return case


def write_back(case: VolumeCase, path: Path, native: np.ndarray) -> nib.Nifti1Image:
    slices = case.to_slices(native)
    case.check_output(path)
    case.write_mask(path, lambda i: slices[i])
    return nib.load(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_and_byte_order_is_read(kind: str, order: str, suffix: str, tmp_path: Path) -> None:
    array = numbers((5, 6, 7), dtype=np.dtype(kind))
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    path = tmp_path / f"image{suffix}"
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 2, 1]), header), path)
    case = volume(path, plane="native")
    for k in range(7):
        part = case.slice(k)
        assert part.dtype == (np.uint8 if kind == "u1" else np.float32)
        assert np.array_equal(part, array[:, :, k].T)
    assert case.display.dtype.isnative
    assert case.intensity_range()[0] < case.intensity_range()[1]
    mask = write_back(case, tmp_path / f"mask{suffix}", (array % 3).astype(np.uint8))
    assert np.array_equal(np.asarray(mask.dataobj), array % 3)
    assert mask.header.endianness == order


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_scaled_numbers_become_values_and_masks_are_not_scaled(suffix: str, tmp_path: Path) -> None:
    stored = numbers((5, 6, 7))
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    path = tmp_path / f"image{suffix}"
    nib.save(image, path)
    case = volume(path)
    expected = nib.load(path).get_fdata().astype(np.float32)
    assert np.array_equal(case.restore(np.stack([case.slice(i) for i in range(case.n_slices)])), expected)
    assert case.display.dtype == np.float32
    mask = write_back(case, tmp_path / f"mask{suffix}", (stored % 4).astype(np.uint8))
    opened = nib.openers.ImageOpener(mask.get_filename())  # nibabel hides the scaling of a loaded image
    with opened as stream:
        raw = nib.Nifti1Header.from_fileobj(stream)
    assert (float(raw["scl_slope"]), float(raw["scl_inter"])) == (1.0, 0.0)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(mask.dataobj), stored % 4)


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_colour_voxels_become_three_channels(suffix: str, channels: str, tmp_path: Path) -> None:
    colours = numbers((4, 5, 6, len(channels)), np.uint8)
    dtype = np.dtype([(name, "u1") for name in channels])
    array = np.ascontiguousarray(colours).view(dtype)[..., 0]
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), tmp_path / f"image{suffix}")
    case = volume(tmp_path / f"image{suffix}")
    assert case.is_colour
    assert case.display.shape == (6, 5, 4, 3)
    assert np.array_equal(case.slice(2), colours[:, :, 2, :3].swapaxes(0, 1))
    mask = write_back(case, tmp_path / "mask.nii.gz", colours[..., 0] % 3)
    assert np.array_equal(np.asarray(mask.dataobj), colours[..., 0] % 3)


def test_a_flat_file_is_one_slice_and_its_mask_is_flat(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "image.nii", numbers((8, 9))))
    assert (case.n_slices, case.slice_shape(0)) == (1, (9, 8))
    mask = write_back(case, tmp_path / "mask.nii", np.ones((8, 9, 1), np.uint8))
    assert mask.shape == (8, 9)
    assert case.read_labels(tmp_path / "mask.nii")[0].all()


def test_trailing_dimensions_of_one_are_kept(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6, 1, 1))))
    mask = write_back(case, tmp_path / "mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    assert mask.shape == nib.load(tmp_path / "image.nii.gz").shape
    assert read_mask_volume(tmp_path / "mask.nii.gz")[0].shape == (4, 5, 6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_component_of_a_series_is_chosen(suffix: str, tmp_path: Path) -> None:
    array = numbers((4, 5, 6, 2, 3))
    path = write_nifti(tmp_path / f"image{suffix}", array)
    with pytest.raises(CaseError, match=r"image\.nii.*6 volumes") as caught:
        open_case(path)
    assert (caught.value.hint, caught.value.message.facts) == (Hint.CHOOSE_VOLUME, {"last": 5})
    with pytest.raises(CaseError, match="no component 6"):
        open_case(path, component=6)
    case = volume(path, component=3, plane="native")
    assert np.array_equal(case.slice(1), array[:, :, 1, 1, 1].T)
    mask = write_back(case, tmp_path / f"mask{suffix}", (array[..., 0, 0] % 3).astype(np.uint8))
    assert mask.shape == (4, 5, 6)
    assert np.array_equal(mask.affine, nib.load(path).affine)


def test_the_smallest_type_that_holds_the_labels_is_written(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6))))
    assert write_back(case, tmp_path / "a.nii.gz", np.full((4, 5, 6), 255, np.uint16)).get_data_dtype() == np.uint8
    many = numbers((4, 5, 6), np.uint16) * 300
    mask = write_back(case, tmp_path / "b.nii.gz", many)
    assert mask.get_data_dtype() == np.uint16
    assert np.array_equal(np.asarray(mask.dataobj), many)


def test_confidence_is_written_as_float_on_the_same_grid(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6))))
    sure = np.linspace(0, 1, 120, dtype=np.float32).reshape(case.n_slices, *case.slice_shape(0))
    case.write_confidence(tmp_path / "sure.nii.gz", lambda i: sure[i])
    image = nib.load(tmp_path / "sure.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(case.to_slices(np.asarray(image.dataobj)), sure)
    assert np.array_equal(image.affine, nib.load(case.path).affine)


def test_nifti2_extensions_and_units_are_kept(tmp_path: Path) -> None:
    image = nib.Nifti2Image(numbers((4, 5, 6)), np.diag([0.001, 0.001, 0.004, 1]))
    image.header.set_xyzt_units("meter", "sec")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"from the scanner"))
    nib.save(image, tmp_path / "image.nii")
    case = volume(tmp_path / "image.nii")
    assert case.slice_spacing(0) == pytest.approx((1.0, 1.0))
    assert case.slice_distance == pytest.approx(4.0)
    mask = write_back(case, tmp_path / "mask.nii", np.ones((4, 5, 6), np.uint8))
    assert isinstance(mask, nib.Nifti2Image)
    assert mask.header.get_xyzt_units() == ("meter", "sec")
    assert [e.get_content().rstrip(b"\0") for e in mask.header.extensions] == [b"from the scanner"]


def test_the_intensity_fields_of_the_image_do_not_reach_the_mask(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii", numbers((4, 5, 6)), cal_max=400, cal_min=-100, intent_code=5)
    mask = write_back(volume(path), tmp_path / "mask.nii", np.ones((4, 5, 6), np.uint8))
    assert [float(mask.header[key]) for key in ("cal_max", "cal_min", "intent_code")] == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_few_voxels_that_are_no_numbers_are_replaced_and_said(suffix: str, tmp_path: Path) -> None:
    array = numbers((4, 5, 6), np.float32)
    low, high = array.min(), array.max()
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2] = np.nan, np.inf, -np.inf
    path = write_nifti(tmp_path / f"image{suffix}", array)
    before = listing(tmp_path)
    case = volume(path, plane="native")
    assert "3 voxels" in case.notices[0]
    assert [case.slice(k)[k, k] for k in range(3)] == [low, high, low]
    assert np.isfinite(case.display).all()
    assert listing(tmp_path) == before  # the file is mapped, and must not change


def test_numbers_beyond_float32_count_as_infinite(tmp_path: Path) -> None:
    array = numbers((4, 5, 6), np.float64)
    array[0, 0, 0] = 1e300
    case = volume(write_nifti(tmp_path / "image.nii", array), plane="native")
    assert "1 voxel " in case.notices[0]
    assert case.slice(0)[0, 0] == array[array < 1e300].max()


def test_contradicting_headers_follow_the_sform_and_say_so(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii", numbers((4, 5, 6)))
    image = nib.load(path)
    image.set_qform(np.diag([1.0, 1.5, 4.0, 1]) @ nib.affines.from_matvec(np.eye(3), (5, 0, 0)), code=1)
    nib.save(image, tmp_path / "other.nii")
    case = volume(tmp_path / "other.nii")
    assert "qform and sform disagree by up to 5 mm" in case.notices[0]
    assert np.array_equal(case.grid.affine, image.get_sform())


def test_a_header_without_orientation_says_so_and_keeps_its_codes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers((4, 5, 6)), None)
    image.header.set_zooms((2, 2, 5))
    nib.save(image, tmp_path / "image.nii.gz")
    case = volume(tmp_path / "image.nii.gz")
    assert "left and right are not certain" in case.notices[0]
    mask = write_back(case, tmp_path / "mask.nii.gz", np.ones((4, 5, 6), np.uint8))
    assert (int(mask.header["qform_code"]), int(mask.header["sform_code"])) == (0, 0)
    assert np.array_equal(mask.affine, nib.load(tmp_path / "image.nii.gz").affine)
    assert len(case.read_labels(tmp_path / "mask.nii.gz")) == 6


def test_a_slice_is_a_copy(tmp_path: Path) -> None:
    case = volume(write_nifti(tmp_path / "image.nii", numbers((4, 5, 6), np.uint8)))
    before = case.slice(0)
    case.slice(0)[:] = 0
    assert np.array_equal(case.slice(0), before)


def test_fingerprints_follow_the_pixels_and_not_the_name(tmp_path: Path) -> None:
    array = numbers((4, 5, 6))
    one = volume(write_nifti(tmp_path / "a.nii", array))
    packed = volume(write_nifti(tmp_path / "b.nii.gz", array))
    assert one.fingerprint == packed.fingerprint
    assert one.slice_fingerprint(2) == packed.slice_fingerprint(2)
    assert len({one.slice_fingerprint(i) for i in range(one.n_slices)}) == one.n_slices
    assert volume(tmp_path / "a.nii", plane=Plane.CORONAL).slice_fingerprint(2) != one.slice_fingerprint(2)
    assert volume(tmp_path / "a.nii", plane=Plane.CORONAL).fingerprint == one.fingerprint
    array[0, 0, 0] += 1
    assert volume(write_nifti(tmp_path / "c.nii", array)).fingerprint != one.fingerprint
    flipped = volume(write_nifti(tmp_path / "d.nii", numbers((4, 5, 6)), np.diag([-1.0, 1.5, 4.0, 1.0])))
    assert flipped.fingerprint != one.fingerprint


def test_a_volume_is_held_in_its_stored_type_only(tmp_path: Path) -> None:
    array = numbers((128, 128, 60))
    path = write_nifti(tmp_path / "image.nii.gz", array, scl_slope=2.0, scl_inter=-5.0)
    tracemalloc.start()
    try:
        case = volume(path)
        for i in range(case.n_slices):
            case.slice(i)
        case.intensity_range(), case.fingerprint
        held, peak = tracemalloc.get_traced_memory()
        assert held < 1.2 * array.nbytes
        # Percentiles sort a float sample; a float64 copy of the volume alone would be four times the stored size.
        assert peak < 1.2 * array.nbytes + 26_000_000
        tracemalloc.reset_peak()
        case.write_mask(tmp_path / "mask.nii", lambda i: np.ones(case.slice_shape(i), np.uint16))
        assert tracemalloc.get_traced_memory()[1] < held + 2.5 * array.size
    finally:
        tracemalloc.stop()


def test_an_uncompressed_file_is_mapped_rather_than_read(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii", numbers((128, 128, 60)))
    tracemalloc.start()
    try:
        case = volume(path)
        case.slice(3)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
