"""Segmentations of 3D Slicer: layers, names and colours in, and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.case.nrrd import merge_layers, read_content, slicer_pairs
from napari_dinoaugseg.errors import LabelError
from tests.case.builders import numbers, write_nifti

SHAPE = (8, 9, 6)
AFFINE = np.diag([-0.8, -0.7, 2.5, 1.0])
TUMOUR, KIDNEY = ("Tumour", "0.9 0.1 0.1"), ("Kidney left", "0.1 0.9 0.1")


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    opened = open_case(write_nifti(tmp_path / "ct.nii.gz", numbers(SHAPE), AFFINE))
    assert isinstance(opened, VolumeCase)
    return opened


def two() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 2] = 1
    labels[4:7, 2:5, 2:4] = 2
    return labels


def write_slicer(
    path: Path,
    array: np.ndarray,
    segments: list[dict[str, Any]],
    begin: tuple[int, int, int] = (0, 0, 0),
) -> Path:
    """Write what 3D Slicer does; several layers are the first axis of the array."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    directions = lps[:3, :3].T
    fields: dict[str, Any] = {"space": "left-posterior-superior", "space origin": (lps @ [*begin, 1])[:3]}
    fields["kinds"] = [*(["list"] if array.ndim == 4 else []), "domain", "domain", "domain"]
    fields["space directions"] = np.vstack([[np.nan] * 3, directions]) if array.ndim == 4 else directions
    for n, segment in enumerate(segments):
        fields |= {f"Segment{n}_{key}": str(value) for key, value in segment.items()}
    fields["Segmentation_ReferenceImageExtentOffset"] = " ".join(map(str, begin))
    nrrd.write(str(path), array, fields)
    return path


def segment(named: tuple[str, str], value: int, layer: int = 0) -> dict[str, Any]:
    return {"ID": f"Segment_{value}", "Name": named[0], "Color": named[1], "LabelValue": value, "Layer": layer}


def require_two(case: VolumeCase, path: Path) -> list[str]:
    read = case.read_labels(path)
    expected = case.to_slices(two())
    assert sorted(read) == [2, 3]
    assert all(np.array_equal(read[i], expected[i]) for i in read)
    assert [(entry.number, entry.name, entry.colour) for entry in read.segments] == [
        (1, "Tumour", "#e61a1a"),
        (2, "Kidney left", "#1ae61a"),
    ]
    return read.notices


def test_names_and_colours_are_read(case: VolumeCase, tmp_path: Path) -> None:
    path = write_slicer(tmp_path / "a.seg.nrrd", two(), [segment(TUMOUR, 1), segment(KIDNEY, 2)])
    assert require_two(case, path) == []


def test_a_segmentation_that_was_cut_to_its_segments_is_put_in_its_place(case: VolumeCase, tmp_path: Path) -> None:
    part = two()[1:7, 2:5, 2:4]
    path = write_slicer(tmp_path / "a.seg.nrrd", part, [segment(TUMOUR, 1), segment(KIDNEY, 2)], (1, 2, 2))
    (notice,) = require_two(case, path)
    assert "6 x 3 x 2 voxels of a grid that begins at voxel (1, 2, 2) of the image of 8 x 9 x 6" in notice


@pytest.mark.parametrize("values", [(1, 1), (1, 2)])
def test_layers_that_do_not_overlap_are_merged(values: tuple[int, int], case: VolumeCase, tmp_path: Path) -> None:
    layers = np.stack([(two() == n + 1) * np.uint8(value) for n, value in enumerate(values)])
    path = write_slicer(tmp_path / "a.seg.nrrd", layers, [segment(TUMOUR, values[0]), segment(KIDNEY, values[1], 1)])
    notices = require_two(case, path)
    if values == (1, 1):
        assert "share label values" in notices[0]
        assert "(1 Tumour, 2 Kidney left)" in notices[0]
    else:
        assert notices == []
    mask, grid = read_mask_volume(path)
    assert np.array_equal(mask, two())
    assert grid.shape == SHAPE


def test_a_file_of_before_label_values_has_one_layer_for_each_segment(case: VolumeCase, tmp_path: Path) -> None:
    layers = np.stack([two() == 1, two() == 2]).astype(np.uint8)
    old = [{"Name": name, "Color": colour} for name, colour in (TUMOUR, KIDNEY)]
    assert "share label values" in require_two(case, write_slicer(tmp_path / "a.seg.nrrd", layers, old))[0]


def test_an_overlap_is_refused_with_both_segments_named(case: VolumeCase, tmp_path: Path) -> None:
    layers = np.stack([two() == 1, two() >= 1]).astype(np.uint8)
    path = write_slicer(tmp_path / "a.seg.nrrd", layers, [segment(TUMOUR, 1), segment(KIDNEY, 1, 1)])
    with pytest.raises(LabelError, match=r"a\.seg\.nrrd: the segments 'Tumour' and 'Kidney left' overlap in 9 voxels"):
        case.read_labels(path)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([segment(TUMOUR, 1), segment(KIDNEY, 1)], "two segments have the same voxels"),
        ([segment(TUMOUR, 1), segment(KIDNEY, 1, 7)], "'Kidney left' has no voxels of its own"),
        ([segment(TUMOUR, 1), segment(KIDNEY, 0, 1)], "'Kidney left' has no voxels of its own"),
        ([segment(TUMOUR, 1), segment(KIDNEY, 1, 1) | {"Layer": "top"}], "is not a number"),
        ([segment(TUMOUR, 1), segment(KIDNEY, 5, 1)], "layer 1 holds 1, which no segment has"),
    ],
)
def test_segments_without_voxels_of_their_own_are_refused(
    segments: list[dict[str, Any]], message: str, case: VolumeCase, tmp_path: Path
) -> None:
    layers = np.stack([two() == 1, two() == 2]).astype(np.uint8)
    with pytest.raises(LabelError, match=rf"a\.seg\.nrrd: .*{message}"):
        case.read_labels(write_slicer(tmp_path / "a.seg.nrrd", layers, segments))


def test_a_label_that_no_segment_has_stays_a_label(case: VolumeCase, tmp_path: Path) -> None:
    read = case.read_labels(write_slicer(tmp_path / "a.seg.nrrd", two(), [segment(TUMOUR, 1)]))
    assert np.array_equal(read[2], case.to_slices(two())[2])
    assert [entry.number for entry in read.segments] == [1]


def test_a_mask_goes_out_as_3d_slicer_reads_it_and_comes_in_again(case: VolumeCase, tmp_path: Path) -> None:
    meant = [Segment(1, "Niere, links: M\u00fcller", "#e61a1a"), Segment(7, "back\\slash  and\nline", "#0072b2")]
    labels = np.where(two() == 2, 7, two())
    slices = case.to_slices(labels)
    path = tmp_path / "mask.seg.nrrd"
    case.check_output(path)
    case.write_mask(path, lambda i: slices[i], meant)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), labels)
    assert image.GetSpacing() == pytest.approx((0.8, 0.7, 2.5))
    expected = {
        "Segment0_ID": "Segment_1",
        "Segment0_Name": "Niere, links: M\u00fcller",
        "Segment0_Color": "0.901961 0.101961 0.101961",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Extent": "1 3 2 4 2 2",
        "Segment0_Tags": "Segmentation.Status:inprogress|",
        "Segment1_LabelValue": "7",
        "Segment1_Extent": "4 6 2 4 2 3",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    assert {key: image.GetMetaData(key) for key in expected} == expected
    read = case.read_labels(path)
    assert [(entry.number, entry.name, entry.colour) for entry in read.segments] == [
        (1, "Niere, links: M\u00fcller", "#e61a1a"),
        (7, "back\\slash and line", "#0072b2"),
    ]
    assert all(np.array_equal(read[i], slices[i]) for i in read)


def test_slicers_own_reader_finds_every_field(case: VolumeCase, tmp_path: Path) -> None:
    slicerio = pytest.importorskip("slicerio")
    meant = [Segment(1, "liver", "#e61a1a"), Segment(2, "left kidney", "#0072b2"), Segment(9, "never painted")]
    slices = case.to_slices(two())
    case.write_mask(tmp_path / "mask.seg.nrrd", lambda i: slices[i], meant)
    read = slicerio.read_segmentation(str(tmp_path / "mask.seg.nrrd"))
    assert np.array_equal(read["voxels"], two())
    assert np.allclose(np.diag([-1, -1, 1, 1]) @ read["ijkToLPS"], AFFINE)
    liver, kidney, empty = read["segments"]
    assert [entry["name"] for entry in read["segments"]] == ["liver", "left kidney", "never painted"]
    assert [entry["labelValue"] for entry in read["segments"]] == [1, 2, 9]
    assert np.allclose(liver["color"], [0xE6 / 255, 0x1A / 255, 0x1A / 255], atol=1e-5)
    assert kidney["extent"] == [4, 6, 2, 4, 2, 3]
    assert empty["extent"] == [0, -1, 0, -1, 0, -1]
    assert liver["terminology"]["type"] == ["SCT", "10200004", "Liver"]
    assert kidney["terminology"]["type"][2] == "Kidney"
    assert kidney["terminology"]["typeModifier"] == ["SCT", "7771000", "Left"]
    assert kidney["terminology"]["category"][2] == "Anatomical Structure"
    assert "terminology" not in empty
    assert read["containedRepresentationNames"] == ["Binary labelmap"]
    # By its terms, as scripts choose segments.
    kidneys = slicerio.extract_segments(read, [(kidney["terminology"], 5)])
    assert np.array_equal(kidneys["voxels"], np.where(two() == 2, 5, 0))


def test_the_mask_of_one_slice_has_three_axes_as_slicer_requires(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "flat.nrrd"), numbers((8, 9)), {"spacings": [0.8, 0.7]})
    flat = open_case(tmp_path / "flat.nrrd")
    painted = np.zeros(flat.slice_shape(0), np.uint8)
    painted[1:3, 2:6] = 1
    flat.write_mask(tmp_path / "mask.seg.nrrd", lambda _: painted)
    assert sitk.ReadImage(str(tmp_path / "mask.seg.nrrd")).GetDimension() == 3
    assert np.array_equal(flat.read_labels(tmp_path / "mask.seg.nrrd")[0], painted)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), max_size=5),
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=5, max_size=5),
)
def test_any_name_and_colour_comes_back(
    names: list[str], colours: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from napari_dinoaugseg.case.nrrd import save_nrrd

    hexes = ["#" + "".join(f"{part:02x}" for part in colour) for colour in colours]
    meant = [Segment(3 * n + 2, name, hexes[n]) for n, name in enumerate(names)]
    path = tmp_path_factory.getbasetemp() / "names.seg.nrrd"
    labels = np.zeros((2, 2, 2), np.uint8)
    save_nrrd(path, labels, open_grid(), pairs=slicer_pairs(labels, meant))
    if not meant:
        assert not any("Segment0_" in str(key) for key in read_content(path).header)
        return
    _, found, _ = merge_layers(path, read_content(path))
    for entry, other in zip(meant, found, strict=True):
        assert (other.number, other.colour) == (entry.number, entry.colour)
        assert other.name == (" ".join(entry.name.split()) or other.name)


def open_grid() -> Any:
    from napari_dinoaugseg.case import Grid

    return Grid((2, 2, 2), np.eye(4))
