"""NRRD in the spaces that 3D Slicer, ITK and others write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.errors import CaseError
from tests.case.builders import OBLIQUE, numbers

# The same place in three spaces: columns of step vectors and the origin, in RAS.
STEPS = OBLIQUE @ np.diag([0.7, 0.9, 3.0])
ORIGIN = np.array([-12.0, 8.0, 40.0])


def write(path: Path, array: np.ndarray, **header: Any) -> Path:
    nrrd.write(str(path), array, {key.replace("_", " "): value for key, value in header.items()})
    return path


def in_space(space: str) -> dict[str, Any]:
    signs = np.array({"RAS": (1, 1, 1), "LPS": (-1, -1, 1), "LAS": (-1, 1, 1)}[space[:3].upper()])
    return {"space": space, "space_directions": (signs[:, None] * STEPS).T, "space_origin": signs * ORIGIN}


def volume(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii", "bzip2"])
@pytest.mark.parametrize("space", ["RAS", "LPS", "LAS"])
def test_every_space_gives_the_same_place(space: str, encoding: str, tmp_path: Path) -> None:
    array = numbers((5, 6, 7))
    case = volume(write(tmp_path / "image.nrrd", array, encoding=encoding, **in_space(space)), plane="native")
    assert np.allclose(case.grid.affine[:3, :3], STEPS)
    assert np.allclose(case.grid.affine[:3, 3], ORIGIN)
    assert np.array_equal(case.slice(2), array[:, :, 2].T)
    assert case.grid.spacing == pytest.approx((0.7, 0.9, 3.0))


@pytest.mark.parametrize("name", ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior"])
def test_a_mask_keeps_the_header_of_its_image(name: str, tmp_path: Path) -> None:
    short = "".join(part[0].upper() for part in name.split("-"))
    fields = {**in_space(short), "space": name, "kinds": ["domain"] * 3, "space_units": ["mm"] * 3}
    path = write(tmp_path / "image.nrrd", numbers((5, 6, 7), np.float32), **fields)
    case = volume(path)
    truth = (numbers((5, 6, 7)) % 4).astype(np.uint8)
    slices = case.to_slices(truth)
    case.write_mask(tmp_path / "mask.nrrd", lambda i: slices[i])
    array, header = nrrd.read(str(tmp_path / "mask.nrrd"))
    _, original = nrrd.read(str(path))
    assert np.array_equal(array, truth)
    assert array.dtype == np.uint8
    for key in ("space", "space directions", "space origin", "kinds", "space units"):
        assert np.array_equal(np.asarray(header[key]), np.asarray(original[key])), key
    labels = case.read_labels(tmp_path / "mask.nrrd", range(case.n_slices))
    assert all(np.array_equal(labels[i], slices[i]) for i in labels)


def test_further_fields_of_the_axes_are_kept(tmp_path: Path) -> None:
    fields = {
        **in_space("LPS"),
        "kinds": ["domain"] * 3,
        "labels": ["x", "y", "z"],
        "centerings": ["cell", "cell", "cell"],
        "thicknesses": np.array([np.nan, np.nan, 3.0]),
        "measurement_frame": np.eye(3),
    }
    case = volume(write(tmp_path / "image.nrrd", numbers((5, 6, 7)), **fields, modality="MR"))
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    header = nrrd.read_header(str(tmp_path / "mask.nrrd"))
    assert header["labels"] == ["x", "y", "z"]
    assert header["centerings"] == ["cell", "cell", "cell"]
    assert np.array_equal(header["thicknesses"], [np.nan, np.nan, 3.0], equal_nan=True)
    assert np.array_equal(header["measurement frame"], np.eye(3))


def test_a_nifti_mask_of_a_nrrd_image_lies_in_the_same_place(tmp_path: Path) -> None:
    case = volume(write(tmp_path / "image.nrrd", numbers((5, 6, 7)), **in_space("LPS")))
    slices = case.to_slices(numbers((5, 6, 7), np.uint8))
    for name in ("mask.nii.gz", "mask.nrrd"):
        case.write_mask(tmp_path / name, lambda i: slices[i])
        labels = case.read_labels(tmp_path / name, range(case.n_slices))
        assert all(np.array_equal(labels[i], slices[i]) for i in labels)


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    case = volume(write(tmp_path / "image.nrrd", numbers((5, 6, 7)), **in_space("LPS")))
    for name in ("a.nrrd", "b.nrrd", "a.nii.gz", "b.nii.gz"):
        case.write_mask(tmp_path / name, lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
    assert b"generated" not in (tmp_path / "a.nrrd").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_file_without_a_named_space_says_what_is_assumed(tmp_path: Path) -> None:
    case = volume(write(tmp_path / "image.nrrd", numbers((5, 6, 7)), spacings=[0.5, 0.6, 2.0]))
    assert "left-posterior-superior is assumed" in case.notices[0]
    assert case.slice_spacing(0) == pytest.approx((0.6, 0.5))
    assert np.array_equal(case.display, numbers((5, 6, 7)).T)


def test_a_file_without_spacing_has_none(tmp_path: Path) -> None:
    case = volume(write(tmp_path / "image.nrrd", numbers((5, 6, 7))))
    assert case.slice_spacing(0) is None
    assert case.slice_distance is None
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert len(case.read_labels(tmp_path / "mask.nrrd")) == 7


def test_colour_and_time_axes_are_told_from_space(tmp_path: Path) -> None:
    nowhere = np.full((1, 3), np.nan)
    colours = numbers((3, 5, 6, 7), np.uint8)
    fields = in_space("LPS")
    fields["space_directions"] = np.vstack([nowhere, fields["space_directions"]])
    kinds = ["RGB-color", "domain", "domain", "domain"]
    case = volume(write(tmp_path / "colour.nrrd", colours, **fields, kinds=kinds), plane="native")
    assert case.is_colour
    assert np.array_equal(case.slice(4), colours[:, :, :, 4].transpose(2, 1, 0))
    times = numbers((2, 5, 6, 7))
    path = write(tmp_path / "times.nrrd", times, **fields, kinds=["list", "domain", "domain", "domain"])
    with pytest.raises(CaseError, match="2 volumes"):
        open_case(path)
    case = volume(path, component=1, plane="native")
    assert np.array_equal(case.slice(4), times[1, :, :, 4].T)
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert len(case.read_labels(tmp_path / "mask.nrrd")) == 7
    assert nrrd.read_header(str(tmp_path / "mask.nrrd"))["sizes"].tolist() == [5, 6, 7]


def test_a_flat_file_is_one_slice(tmp_path: Path) -> None:
    case = volume(write(tmp_path / "image.nrrd", numbers((8, 9)), spacings=[0.5, 0.6]))
    assert (case.n_slices, case.slice_shape(0)) == (1, (9, 8))
    case.write_mask(tmp_path / "mask.nrrd", lambda i: np.ones(case.slice_shape(i), np.uint8))
    assert read_mask_volume(tmp_path / "mask.nrrd")[0].shape == (8, 9, 1)
    assert nrrd.read_header(str(tmp_path / "mask.nrrd"))["dimension"] == 2


def test_a_detached_header_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "image.nhdr"), numbers((5, 6, 7)))
    with pytest.raises(CaseError, match=r"image\.nhdr"):
        open_case(tmp_path / "image.nhdr")
    (tmp_path / "image.nhdr").rename(tmp_path / "image.nrrd")
    with pytest.raises(CaseError, match=r"image\.nrrd: a detached NRRD header"):
        open_case(tmp_path / "image.nrrd")
