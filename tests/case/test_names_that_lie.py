"""A volume is read by what it holds, whatever its name says."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.files import name_of, stem_of, suffix_of
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import numbers, write_nifti

ARRAY = numbers((4, 5, 6))


@pytest.mark.parametrize(
    ("name", "packed", "told"),
    [
        ("scan.nii.gz", False, "scan.nii.gz is NIfTI that is not packed"),
        ("scan.nii", True, "scan.nii is NIfTI packed with gzip"),
        ("noext", True, "noext is NIfTI packed with gzip"),
        ("noext", False, "noext is NIfTI that is not packed"),
        ("scan.img.gz.1", True, "scan.img.gz.1 is NIfTI packed with gzip"),
        ("scan.nrrd", True, "scan.nrrd is NIfTI packed with gzip"),
        ("SCAN.NII.GZ", True, None),
        ("Scan.Nii", False, None),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_is_read_as_image_and_as_labels(
    kind: type, name: str, packed: bool, told: str | None, tmp_path: Path
) -> None:
    nib.save(kind(ARRAY, np.diag([1.0, 1.5, 4.0, 1.0])), tmp_path / "real.nii")
    raw = (tmp_path / "real.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(raw) if packed else raw)
    case = open_case(tmp_path / name, plane="native")
    assert isinstance(case, VolumeCase)
    assert np.array_equal(case.slice(2), ARRAY[:, :, 2].T)
    assert [told in notice for notice in case.notices] == ([] if told is None else [True])
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.full(case.slice_shape(i), i + 1, np.uint8))
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert type(mask) is kind
    assert np.array_equal(mask.affine, nib.load(tmp_path / "real.nii").affine)
    shutil.copy(tmp_path / "mask.nii.gz", tmp_path / "labels")
    assert sorted(case.read_labels(tmp_path / "labels")) == list(range(6))


def test_nrrd_by_any_name_is_read(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "scan.nrrd"), ARRAY, {"spacings": [1.0, 2.0, 3.0]})
    (tmp_path / "scan.nrrd").rename(tmp_path / "scan.nii")
    case = open_case(tmp_path / "scan.nii", plane="native")
    assert np.array_equal(case.slice(2), ARRAY[:, :, 2].T)


def test_a_file_that_is_packed_twice_is_told(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", ARRAY)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(CaseError, match=r"scan\.nii\.gz: it is packed with gzip twice"):
        open_case(path)


def test_what_is_no_volume_is_refused_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(gzip.compress(b"notes" * 200))
    with pytest.raises(CaseError, match="notes: files of this kind are not supported"):
        open_case(tmp_path / "notes")


def test_the_suffix_of_a_segmentation_is_one() -> None:
    for name in ("Head.seg.nrrd", "Head.SEG.NRRD"):
        assert suffix_of(Path(name)) == ".seg.nrrd"
        assert stem_of(Path(name)) == name_of(Path("x") / name) == "Head"
