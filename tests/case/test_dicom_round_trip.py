"""Masks of DICOM series in patient coordinates, against an independent way there: GDCM and ITK.

The series holds a bright shape without any symmetry, somewhere in noise. The case labels what is bright, slice by
slice, as a person would. SimpleITK reads the series by itself, and must find the label on exactly the bright voxels.
"""

from __future__ import annotations

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.case.case import Segment
from tests.case.builders import OBLIQUE, write_dicom, write_enhanced

sitk = pytest.importorskip("SimpleITK")

SHAPE = (7, 9, 11)  # slices, rows, columns
# Three parts of a figure that no turn and no mirror brings onto itself.
PARTS = (
    (slice(1, 2), slice(2, 8), slice(3, 5)),
    (slice(2, 5), slice(2, 4), slice(3, 8)),
    (slice(4, 6), slice(4, 5), slice(7, 10)),
)
TURNS = {
    "axial": np.eye(3),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]]),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]]),
    "feet first": np.diag([-1.0, -1.0, 1.0]),
    "mirrored": np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1.0]]),
    "oblique": OBLIQUE,
    "oblique sagittal": OBLIQUE @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]]),
}


def volume() -> NDArray[np.uint16]:
    """Return noise below 900, and the parts of the figure at 1100, 1200 and 1300."""
    pixels = np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.uint16)
    for n, part in enumerate(PARTS, start=1):
        pixels[part] = 1000 + 100 * n
    return pixels


def labels_of(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 1 to 3 on the parts of the figure. Values are 1024 below the stored numbers."""
    return np.select([values == 76, values == 176, values == 276], [1, 2, 3], 0).astype(np.uint8)


def places(image: object, wanted: int) -> NDArray[np.float64]:
    """Return the voxels of a SimpleITK image that hold a value, as LPS coordinates (n, 3) in order."""
    found = np.argwhere(sitk.GetArrayFromImage(image) == wanted)[:, ::-1]
    points = np.array([image.TransformIndexToPhysicalPoint([int(n) for n in index]) for index in found])  # type: ignore[attr-defined]
    return points[np.lexsort(np.round(points, 2).T)]


geometries = st.fixed_dictionaries(
    {
        "directions": st.sampled_from(sorted(TURNS)).map(lambda name: TURNS[name][:, :2]),
        "spacing": st.sampled_from([(0.7, 0.7), (0.5, 0.8), (1.25, 0.4)]),
        "step": st.sampled_from([0.6, 1.0, 5.0]),
        "origin": st.sampled_from([(0.0, 0.0, 0.0), (-211.5, 97.25, -1034.5)]),
    }
)


@settings(max_examples=12, deadline=None)
@given(geometry=geometries, order=st.permutations(range(SHAPE[0])))
def test_itk_finds_every_label_where_we_put_it(
    geometry: dict[str, object], order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("series")
    write_dicom(folder / "ct", volume(), names=lambda k: f"{order[k]:02d}.dcm", **geometry)  # type: ignore[arg-type]
    case = open_case(folder / "ct")
    assert isinstance(case, VolumeCase)
    masks = [labels_of(case.slice(i)) for i in range(case.n_slices)]
    names = [Segment(2, "two"), Segment(1, "one"), Segment(3, "three")]
    case.write_mask(folder / "mask.nii.gz", masks.__getitem__, names)
    case.write_mask(folder / "mask.nrrd", masks.__getitem__, names)
    case.write_mask(folder / "mask.dcm", masks.__getitem__, names)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    series = reader.Execute()
    seg = highdicom.seg.segread(folder / "mask.dcm").get_volume(combine_segments=True)
    for label in (1, 2, 3):
        bright = places(series, 76 + 100 * (label - 1))
        assert len(bright) == int((labels_of(volume().astype(np.float32) - 1024) == label).sum())
        for name in ("mask.nii.gz", "mask.nrrd"):
            assert np.allclose(places(sitk.ReadImage(str(folder / name)), label), bright, atol=0.01)
        indices = np.argwhere(seg.array == label)
        points = indices @ seg.affine[:3, :3].T + seg.affine[:3, 3]
        assert np.allclose(points[np.lexsort(np.round(points, 2).T)], bright, atol=0.01)
    # And back in: the same slices, whichever file they come from.
    for name in ("mask.nii.gz", "mask.nrrd", "mask.dcm"):
        read = case.read_labels(folder / name, range(case.n_slices))
        assert all(np.array_equal(read[i], masks[i]) for i in read)


@settings(max_examples=5, deadline=None)
@given(geometry=geometries, order=st.permutations(range(SHAPE[0])))
def test_a_multi_frame_file_gives_the_masks_of_its_single_slices(
    geometry: dict[str, object], order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("series")
    write_dicom(folder / "single", volume(), **geometry)  # type: ignore[arg-type]
    write_enhanced(folder / "frames.dcm", volume(), order=order, **geometry)  # type: ignore[arg-type]
    written = []
    for path in (folder / "single", folder / "frames.dcm"):
        case = open_case(path)
        assert isinstance(case, VolumeCase)
        masks = [labels_of(case.slice(i)) for i in range(case.n_slices)]
        case.write_mask(folder / "mask.dcm", masks.__getitem__)
        seg = highdicom.seg.segread(folder / "mask.dcm").get_volume(combine_segments=True)
        written.append((seg.array, seg.affine))
        read = case.read_labels(folder / "mask.dcm", range(case.n_slices))
        assert all(np.array_equal(read[i], masks[i]) for i in read)
    assert np.array_equal(written[0][0], written[1][0])
    assert np.allclose(written[0][1], written[1][1], atol=1e-5)
