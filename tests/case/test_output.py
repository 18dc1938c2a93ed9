"""Results are written whole or not at all, and never over an input."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.files import atomic_file
from napari_dinoaugseg.errors import OutputError
from tests.case.builders import listing, numbers, write_dicom, write_nifti


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    opened = open_case(write_nifti(tmp_path / "ct.nii.gz", numbers((4, 5, 6))))
    assert isinstance(opened, VolumeCase)
    return opened


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("ct.nii.gz", "overwrite an input"),
        ("sub/../ct.nii.gz", "overwrite an input"),
        ("link.nii.gz", "overwrite an input"),
        ("labels.nii.gz", "overwrite an input"),
        ("missing/mask.nii.gz", "does not exist"),
        ("labels.nii.gz/mask.nii.gz", "is a file, not a folder"),
        ("sub", "this is a folder"),
        ("mask.png", "must end in .nii.gz, .nii, .nrrd"),
        ("mask.tif", "must end in"),
        ("mask", "must end in"),
        ("mask.gz", "must end in"),
    ],
)
def test_a_place_that_cannot_take_the_mask_is_refused_beforehand(
    output: str, message: str, case: VolumeCase, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "ct.nii.gz")
    labels = write_nifti(tmp_path / "labels.nii.gz", numbers((4, 5, 6)))
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=message) as caught:
        case.check_output(tmp_path / output, [labels])
    assert Path(output).name in str(caught.value)
    assert listing(tmp_path) == before


def test_a_good_place_is_accepted_and_left_untouched(case: VolumeCase, tmp_path: Path) -> None:
    for name in ("mask.nii", "mask.nii.gz", "mask.nrrd", "MASK.NII.GZ"):
        case.check_output(tmp_path / name)
    assert sorted(listing(tmp_path)) == ["ct.nii.gz"]


def test_a_folder_that_cannot_be_written_is_refused(case: VolumeCase, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):  # an administrator may write anywhere but here
        locked = Path("/proc")
        if not locked.is_dir():
            pytest.skip("every folder can be written here")
    with pytest.raises(OutputError, match="not writable"):
        case.check_output(locked / "mask.nii.gz")


def test_no_slice_of_a_dicom_case_is_overwritten(tmp_path: Path) -> None:
    files = write_dicom(tmp_path / "ct", numbers((3, 4, 5), np.uint16))
    named = files[1].rename(tmp_path / "ct" / "slice.nii")
    case = open_case(tmp_path / "ct")
    with pytest.raises(OutputError, match="overwrite an input"):
        case.check_output(named)


def test_a_failure_midway_leaves_the_old_file(case: VolumeCase, tmp_path: Path) -> None:
    def masks(i: int) -> np.ndarray:
        if i == 3:
            raise KeyboardInterrupt
        return np.ones(case.slice_shape(i), np.uint8)

    (tmp_path / "mask.nii.gz").write_bytes(b"old")
    before = listing(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        case.write_mask(tmp_path / "mask.nii.gz", masks)
    assert listing(tmp_path) == before


def test_a_full_disk_leaves_nothing(case: VolumeCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_dinoaugseg.case.writing.save_nifti", full)
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=r"mask\.nii\.gz: cannot be written \(No space left on device\)"):
        case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert listing(tmp_path) == before


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_bytes(b"old")
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"n")
        assert target.read_bytes() == b"old"
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"new")
    assert listing(tmp_path) == {"mask.nii.gz": b"new"}


def test_a_mask_of_another_size_is_a_bug_and_said_so(case: VolumeCase, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slice 0 is"):
        case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.ones((2, 2), np.uint8))
    assert sorted(listing(tmp_path)) == ["ct.nii.gz"]
    with pytest.raises(IndexError):
        case.slice(6)


def test_the_same_mask_gives_the_same_bytes_under_any_name(case: VolumeCase, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        case.write_mask(tmp_path / name, lambda i: np.full(case.slice_shape(i), i, np.uint8))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
