"""Every file of nibabel's own test data is a case, or refused in words of ours: headers nobody here thought of."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError, SeveralVolumesError
from tests.case.builders import listing

ROOT = Path(str(importlib.util.find_spec("nibabel").origin)).parent  # type: ignore[union-attr]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("tests/data/**/*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
)
VOLUMES = [name for name in FILES if name.endswith((".nii", ".nii.gz"))]


def opened(path: Path) -> VolumeCase:
    try:
        case = open_case(path)
    except SeveralVolumesError as error:
        case = open_case(path, component=error.count - 1)
    assert isinstance(case, VolumeCase)
    return case


def test_the_collection_is_there() -> None:
    assert len(VOLUMES) >= 5
    assert len(FILES) > 60


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_collection_is_a_case_or_refused_in_two_lines(name: str) -> None:
    refusal = refusal_of(ROOT / name)
    if refusal is None:
        case = opened(ROOT / name)
        assert case.slice(0).shape == case.slice_shape(0)
    else:
        assert Path(name).name in refusal
        assert 1 <= len(refusal.splitlines()) <= 2
        assert name not in VOLUMES or not isinstance(nib.load(ROOT / name), nib.Nifti1Image)


def refusal_of(path: Path) -> str | None:
    try:
        opened(path)
    except CaseError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_of_the_collection_has_nibabels_values_and_its_mask_the_same_place(name: str, tmp_path: Path) -> None:
    image = nib.load(ROOT / name)
    if not isinstance(image, nib.Nifti1Image):
        pytest.skip("CIFTI: no volume")
    case = opened(ROOT / name)
    values = np.asarray(image.dataobj)
    last = values.reshape((*values.shape[:3], -1), order="F")[..., -1].astype(np.float32)
    found = case.restore(np.stack([case.slice(i) for i in range(case.n_slices)]))
    finite = np.isfinite(last)  # the others are replaced, and a notice says so
    assert np.array_equal(found[finite], last[finite])
    assert any("NaN or infinite" in notice for notice in case.notices) == (not finite.all())
    assert np.array_equal(case.grid.affine, image.affine)
    case.write_mask(tmp_path / "mask.nii.gz", lambda i: np.full(case.slice_shape(i), i % 200, np.uint8))
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape[:3] == image.shape[:3]
    for form in ("qform", "sform"):
        theirs, ours = (getattr(one, f"get_{form}")(coded=True) for one in (image, mask))
        assert ours[1] == theirs[1]
        assert np.array_equal(ours[0], theirs[0]) if theirs[0] is not None else ours[0] is None


def test_a_pair_of_files_is_refused_with_a_way_out(tmp_path: Path) -> None:
    image = nib.Nifti1Pair(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "scan.hdr")
    before = listing(tmp_path)
    for name in ("scan.hdr", "scan.img"):
        with pytest.raises(CaseError, match=rf"{name}: {name[-4:]} files .*Save the volume as \.nii\.gz, with"):
            open_case(tmp_path / name)
    shutil.copy(tmp_path / "scan.hdr", tmp_path / "scan.nii")
    with pytest.raises(CaseError, match=r"scan\.nii: its header is one of a pair of files.*Save the image as one"):
        open_case(tmp_path / "scan.nii")
    assert set(listing(tmp_path)) == {*before, "scan.nii"}
