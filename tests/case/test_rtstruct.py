"""RTSTRUCT out and in: every voxel at its place, for us and for plastimatch; whatever makes no label is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.uid import RTStructureSetStorage

from napari_dinoaugseg.case import VolumeCase, open_case, read_mask_volume
from napari_dinoaugseg.case.case import ReadLabels, Segment
from napari_dinoaugseg.case.labels import read_mask_volumes
from napari_dinoaugseg.errors import LabelError, OutputError
from tests.case.builders import OBLIQUE, numbers, write_dicom, write_enhanced, write_nifti
from tests.case.dicom_builders import item, write_object
from tests.case.test_contours import ring

SIZE = (6, 40, 50)
CLASSES = (Segment(1, "left kidney", "#e69f00"), Segment(2, "Größe\\肝", "#0072b2", by_hand=True), Segment(7, "empty"))
DIRECTIONS = {
    "axial": np.eye(3)[:, :2],
    "feet first": np.array([[-1.0, 0], [0, 1], [0, 0]]),
    "coronal": np.array([[1.0, 0], [0, 0], [0, -1]]),
    "sagittal": np.array([[0.0, 0], [1, 0], [0, -1]]),
    "oblique": OBLIQUE[:, :2],
}


def opened(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


def shapes(case: VolumeCase) -> NDArray[np.uint8]:
    """Return labels (slice, row, column): a ring with hole and island, lines and pixels of one class in it, a gap."""
    mask = ring()
    labels = np.stack([np.where(np.roll(mask, k, axis=0), 1, 0) for k in range(SIZE[0])]).astype(np.uint8)
    labels[:, 20:22, 3:6], labels[2, 30, 30], labels[5, 38:, :9] = 2, 2, 2
    labels[3] = 0
    # `labels` is as stored; the case may show it in another order.
    return np.ascontiguousarray(case.to_slices(labels.transpose(2, 1, 0)))


def save(case: VolumeCase, path: Path, masks: NDArray[Any], segments: tuple[Segment, ...] = CLASSES) -> pydicom.Dataset:
    case.check_output(path)
    case.write_mask(path, masks.__getitem__, segments)
    return pydicom.dcmread(path)


def read(case: VolumeCase, path: Path) -> tuple[NDArray[Any], ReadLabels]:
    labels = case.read_labels(path, range(case.n_slices))
    assert isinstance(labels, ReadLabels)
    return np.stack(list(labels.values())), labels


def plastimatch(path: Path, images: Path, out: Path, *options: str) -> dict[str, NDArray[Any]]:
    """Return the mask (i, j, k) that plastimatch makes of each structure, on the grid of the images."""
    program = shutil.which("plastimatch", path=str(Path(sys.executable).parent)) or shutil.which("plastimatch")
    if program is None:
        pytest.skip("plastimatch is not installed: there is no wheel for this machine")
    command = [program, "convert", "--input", str(path), "--referenced-ct", str(images), "--output-prefix", str(out)]
    subprocess.run([*command, "--prefix-format", "nrrd", "--prune-empty", *options], check=True, capture_output=True)
    return {file.stem: nrrd.read(str(file))[0] for file in out.iterdir()}


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    write_dicom(tmp_path / "ct", numbers(SIZE, np.uint16))
    return opened(tmp_path / "ct")


# --- out and in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_voxel_comes_back_and_plastimatch_finds_the_same(direction: str, tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers(SIZE, np.uint16), directions=DIRECTIONS[direction])
    case = opened(tmp_path / "ct")
    masks = shapes(case)
    save(case, tmp_path / "mask.rtstruct.dcm", masks, (Segment(1, "one"), Segment(2, "two")))
    assert np.array_equal(read(case, tmp_path / "mask.rtstruct.dcm")[0], masks)
    stored = case.restore(masks)
    # Combined by exclusive or, and united: holes are holes in both ways.
    for n, options in enumerate((["--xor-contours"], [])):
        found = plastimatch(tmp_path / "mask.rtstruct.dcm", tmp_path / "ct", tmp_path / f"out{n}", *options)
        for name, number in (("one", 1), ("two", 2)):
            assert np.array_equal(found[name] != 0, stored == number)


def test_the_plane_of_the_case_changes_nothing(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers(SIZE, np.uint16), directions=OBLIQUE[:, :2])
    axial, sagittal = opened(tmp_path / "ct"), opened(tmp_path / "ct", plane="sagittal")
    masks = shapes(sagittal)
    save(sagittal, tmp_path / "mask.rtstruct.dcm", masks)
    assert np.array_equal(read(sagittal, tmp_path / "mask.rtstruct.dcm")[0], masks)
    assert np.array_equal(read(axial, tmp_path / "mask.rtstruct.dcm")[0], shapes(axial))


def test_frames_of_a_multi_frame_file_are_named(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", numbers(SIZE, np.uint16), order=[2, 0, 3, 1, 5, 4])
    case = opened(path)
    dataset = save(case, tmp_path / "mask.rtstruct.dcm", shapes(case))
    assert np.array_equal(read(case, tmp_path / "mask.rtstruct.dcm")[0], shapes(case))
    series = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert len(series[0].ContourImageSequence) == 1
    # The first slice is the second frame of the file.
    assert dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0].ReferencedFrameNumber == 2


def test_unevenly_spaced_slices_keep_their_places(tmp_path: Path) -> None:
    def moved(k: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [-10, 20, 30 + [0, 3, 6, 14, 17, 29][k]]

    write_dicom(tmp_path / "ct", numbers(SIZE, np.uint16), change=moved)
    case = opened(tmp_path / "ct")
    assert case.mask_suffixes[:2] == (".dcm", ".rtstruct.dcm")
    save(case, tmp_path / "mask.rtstruct.dcm", shapes(case))
    assert np.array_equal(read(case, tmp_path / "mask.rtstruct.dcm")[0], shapes(case))


def test_names_colours_and_numbers_come_back(case: VolumeCase, tmp_path: Path) -> None:
    save(case, tmp_path / "mask.rtstruct.dcm", shapes(case))
    _, labels = read(case, tmp_path / "mask.rtstruct.dcm")
    found = [(entry.number, entry.name, entry.colour) for entry in labels.segments]
    assert found == [(1, "left kidney", "#e69f00"), (2, "Größe/肝", "#0072b2"), (7, "empty", None)]


def test_contours_lie_in_the_patient_and_refer_to_their_images(case: VolumeCase, tmp_path: Path) -> None:
    masks = np.zeros(SIZE, dtype=np.uint8)
    masks[1, 10:13, 20:25] = 1
    dataset = save(case, tmp_path / "mask.rtstruct.dcm", masks, CLASSES[:2])
    image = pydicom.dcmread(tmp_path / "ct" / "IM001.dcm")
    (contour,) = dataset.ROIContourSequence[0].ContourSequence
    places = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
    # Pixels of 0.8 x 0.5 mm; the first is centred at -10, 20; edges lie half a pixel out of the outer centres.
    assert places.min(axis=0).tolist() == [-10 + 19.5 * 0.5, 20 + 9.5 * 0.8, 33]
    assert places.max(axis=0).tolist() == [-10 + 24.5 * 0.5, 20 + 12.5 * 0.8, 33]
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    assert contour.NumberOfContourPoints == len(places)
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert contour.ContourImageSequence[0].ReferencedSOPClassUID == image.SOPClassUID
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == dataset.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == dataset.StudyInstanceUID == image.StudyInstanceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert len(series.ContourImageSequence) == SIZE[0]
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == RTStructureSetStorage
    assert (dataset.Modality, dataset.PatientName, dataset.ApprovalStatus) == (
        "RTSTRUCT",
        image.PatientName,
        "UNAPPROVED",
    )
    assert dataset.OperatorsName in (None, "")
    by_class = dataset.StructureSetROISequence
    assert [entry.ROIGenerationAlgorithm for entry in by_class] == ["SEMIAUTOMATIC", "MANUAL"]
    code = dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeMeaning, code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("Kidney", "Left")
    # Nothing but what is short enough for its value representation.
    assert max(len(str(value)) for value in dataset.ROIContourSequence[0].ContourSequence[0].ContourData) <= 16


def test_a_long_contour_keeps_all_its_corners(tmp_path: Path) -> None:
    """An explicit value representation has no room for more than 64 KiB."""
    write_dicom(tmp_path / "ct", numbers((1, 60, 600), np.uint16), directions=OBLIQUE[:, :2])
    case = opened(tmp_path / "ct", plane="native")
    comb = np.zeros((1, 60, 600), dtype=np.uint8)
    comb[0, :, ::2] = comb[0, 30] = 1
    dataset = save(case, tmp_path / "mask.rtstruct.dcm", comb, ())
    assert sum(len(str(x)) + 1 for x in dataset.ROIContourSequence[0].ContourSequence[0].ContourData) > 2**16
    (contour,) = dataset.ROIContourSequence[0].ContourSequence
    assert contour.NumberOfContourPoints > 2000
    assert np.array_equal(read(case, tmp_path / "mask.rtstruct.dcm")[0], comb)


def test_what_an_rtstruct_cannot_hold_is_refused(case: VolumeCase, tmp_path: Path) -> None:
    nifti = opened(write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6))))
    with pytest.raises(OutputError, match=r"an RTSTRUCT refers to the DICOM.*this case is not a DICOM series"):
        nifti.check_output(tmp_path / "mask.rtstruct.dcm")
    with pytest.raises(OutputError, match=r"contours \(RTSTRUCT\) hold no confidence. Write \.nii\.gz instead"):
        case.check_confidence_output(tmp_path / "sure.rtstruct.dcm")
    with pytest.raises(OutputError, match=r"needs at least one class, and nothing is labelled"):
        save(case, tmp_path / "mask.rtstruct.dcm", np.zeros(SIZE, dtype=np.uint8), ())
    assert not list(tmp_path.glob("*.rtstruct.dcm"))


# --- contours of others -----------------------------------------------------------------------------------------------

Contour = list[tuple[float, float]]


def square(low: float, high: float) -> Contour:
    return [(low, low), (low, high), (high, high), (high, low)]


def write_structures(
    path: Path,
    structures: dict[str, list[tuple[float, Contour]]],
    *,
    kind: str = "CLOSED_PLANAR",
    reference: str = "1.2.4",
    series: str = "1.2.826.0.1.3680043.8.498.1",
    first: int = 1,
    change: Callable[[pydicom.Dataset], None] | None = None,
) -> Path:
    """Write contours: for each structure slices (which may be fractions) and corners (column, row) in pixels."""
    rois, drawn = [], []
    for n, (name, contours) in enumerate(structures.items(), start=first):
        rois.append(item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=reference))
        sequence = []
        for k, corners in contours:
            data = [x for column, row in corners for x in (-10 + 0.5 * column, 20 + 0.8 * row, 30 + 3 * k)]
            values = {"ContourGeometricType": kind, "NumberOfContourPoints": len(corners), "ContourData": data}
            sequence.append(item(**values))
        drawn.append(item(ReferencedROINumber=n, ROIDisplayColor=[10 * n, 20, 30], ContourSequence=sequence))
    referenced = item(SeriesInstanceUID=series, ContourImageSequence=[])
    study = item(ReferencedSOPInstanceUID="1.2.3", RTReferencedSeriesSequence=[referenced])
    frame = item(FrameOfReferenceUID=reference, RTReferencedStudySequence=[study])
    values = {"StructureSetROISequence": rois, "ROIContourSequence": drawn}
    write_object(path, RTStructureSetStorage, "RTSTRUCT", None, ReferencedFrameOfReferenceSequence=[frame], **values)
    if change is not None:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return path


def test_contours_inside_contours_are_holes(case: VolumeCase, tmp_path: Path) -> None:
    nested = [(1, square(4.5, 14.5)), (1, square(6.5, 12.5)), (1, square(8.5, 10.5))]
    for kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
        path = write_structures(tmp_path / "rs.dcm", {"ring": nested}, kind=kind)
        mask, labels = read(case, path)
        assert mask[1].sum() == 100 - 36 + 4
        assert mask[1, 7, 7] == 0
        assert labels.notices == [
            "2 contours inside another one: read as holes, as planning systems write them: ring (2)."
        ]


def test_the_smaller_of_overlapping_structures_keeps_its_voxels(case: VolumeCase, tmp_path: Path) -> None:
    body, tumour = (2, square(-0.5, 29.5)), (2, square(9.5, 14.5))
    path = write_structures(tmp_path / "rs.dcm", {"tumour": [tumour], "body": [body]})
    mask, labels = read(case, path)
    assert [(mask[2] == n).sum() for n in (1, 2)] == [25, 875]
    assert labels.notices == [
        "Structures overlap, but a voxel has one label here: the smaller one keeps it (tumour in body (25), in voxels)."
    ]
    assert [(entry.number, entry.name, entry.colour) for entry in labels.segments] == [
        (1, "tumour", "#0a141e"),
        (2, "body", "#14141e"),
    ]


@pytest.mark.parametrize(
    ("contours", "notice"),
    [
        ([(1.5, square(2, 8))], "1 contour between slices: left out, since no slice is theirs: b (1)."),
        ([(-1, square(2, 8)), (9, square(2, 8))], "2 contours above or below the image: left out: b (2)."),
        ([(1, square(-3, 8))], "1 contour reaching out of the image: cut off at its border: b (1)."),
        ([(1, square(2.1, 2.9))], "so small or thin that no voxel centre lies inside: they leave no label: b (1)."),
        ([(1, square(2, 8)), (1, square(2, 8))], "1 contour given twice: taken once: b (1)."),
        ([(1, square(2, 8)), (1, square(5, 11))], "crossing another one: where both lie is outside, by even-odd: b"),
        ([(1, square(2, 8)), (4, square(2, 8))], "lie between others with one, and nothing is filled in: b (2)."),
        ([(1.2, square(2, 8))], "Contours lie up to 0.6 mm off the slices: they are taken as on the nearest one."),
        ([(1, square(2, 8)), (1.25, square(3, 9))], "1 contour between slices: left out"),
        ([(1, [(2, 2), (9, 9)])], "Points and open contours enclose no voxel and are left out: b (1)."),
    ],
)
def test_contours_that_make_no_label_are_named(
    contours: list[tuple[float, Contour]], notice: str, case: VolumeCase, tmp_path: Path
) -> None:
    path = write_structures(tmp_path / "rs.dcm", {"a": [(0, square(30, 35))], "b": contours})
    mask, labels = read(case, path)
    assert (mask[0] == 1).sum() == 25
    assert any(notice in sentence for sentence in labels.notices), labels.notices
    assert len(labels.notices) == 1


def test_points_are_no_class(case: VolumeCase, tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", {"a": [(0, square(3, 5))], "isocentre": [(1, [(5, 5)])]})
    assert [entry.name for entry in read(case, path)[1].segments] == ["a"]


def test_contours_at_an_angle_to_the_slices_are_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers(SIZE, np.uint16), directions=OBLIQUE[:, :2])
    path = write_structures(tmp_path / "rs.dcm", {"a": [(0, square(3, 30))]})
    with pytest.raises(LabelError, match=r"rs\.dcm: these contours do not fit ct: .*not parallel to the slices"):
        opened(tmp_path / "ct").read_labels(path)


def test_numbers_that_no_label_has_are_replaced(case: VolumeCase, tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", {"a": [(0, square(3, 5))], "b": [(1, square(3, 5))]}, first=0)
    mask, labels = read(case, path)
    assert (mask[0].max(), mask[1].max()) == (1, 2)
    assert labels.notices[0].endswith("they are numbered in their order (1 a, 2 b).")


def test_contours_of_other_images_are_refused(case: VolumeCase, tmp_path: Path) -> None:
    structures = {"a": [(0.0, square(3, 5))]}
    other = write_structures(tmp_path / "other.dcm", structures, reference="1.2.99")
    with pytest.raises(LabelError, match="belong to another frame of reference"):
        case.read_labels(other)
    unknown = write_structures(tmp_path / "unknown.dcm", structures, reference="", series="1.2.98")
    with pytest.raises(LabelError, match="belong to another series"):
        case.read_labels(unknown)
    _, labels = read(case, write_structures(tmp_path / "pet.dcm", structures, series="1.2.98"))
    assert labels.notices[0].startswith("The contours were drawn on another series in the same frame of reference")
    far = write_structures(tmp_path / "far.dcm", {"a": [(40, square(3, 5)), (0.5, square(3, 5))]})
    with pytest.raises(LabelError, match=r"none of .*\(1 lie above or below the image and 1 lie between its slices\)"):
        case.read_labels(far)


def test_contours_are_read_on_a_volume_of_another_format(case: VolumeCase, tmp_path: Path) -> None:
    masks = shapes(case)
    save(case, tmp_path / "mask.rtstruct.dcm", masks)
    # As stored in NIfTI by others: another order of axes, and flipped.
    image = write_nifti(tmp_path / "ct.nii.gz", np.ones(SIZE[::-1], np.uint8), case.grid.affine)
    assert np.array_equal(read(opened(image), tmp_path / "mask.rtstruct.dcm")[0], masks)


def test_contours_are_compared_on_the_grid_of_the_other_mask(case: VolumeCase, tmp_path: Path) -> None:
    masks = shapes(case)
    rt, seg, nifti = tmp_path / "mask.rtstruct.dcm", tmp_path / "mask.dcm", tmp_path / "mask.nii.gz"
    for path in (rt, nifti):
        save_any(case, path, masks)
    masks[4:] = 0
    save_any(case, seg, masks)  # ends before the contours do
    compared = read_mask_volumes(rt, nifti)
    assert np.array_equal(compared.first, compared.second)
    compared = read_mask_volumes(seg, rt)
    assert compared.first.shape == (50, 40, 6)
    assert (compared.first != compared.second).sum() == (shapes(case)[4:] != 0).sum()
    for read_it in (lambda: read_mask_volume(rt), lambda: read_mask_volumes(rt, rt)):
        with pytest.raises(LabelError, match="holds contours and no voxels"):
            read_it()


def save_any(case: VolumeCase, path: Path, masks: NDArray[Any]) -> None:
    case.write_mask(path, masks.__getitem__, CLASSES)


# --- damage -----------------------------------------------------------------------------------------------------------


def _coordinates(value: Any) -> Callable[[pydicom.Dataset], None]:
    def change(dataset: pydicom.Dataset) -> None:
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        contour["ContourData"] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(0x30060050), "DS", len(value), value, 0, False, True
        )

    return change


def _no_structure(dataset: pydicom.Dataset) -> None:
    del dataset.StructureSetROISequence


def _no_contour(dataset: pydicom.Dataset) -> None:
    del dataset.ROIContourSequence


def _same_number(dataset: pydicom.Dataset) -> None:
    dataset.StructureSetROISequence[1].ROINumber = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_structure, "it describes no structure"),
        (_no_contour, r"no structure has a closed contour \(a, b\)"),
        (_same_number, "structures without a number of their own"),
        (_coordinates(b"1\\2\\3\\4"), "announces 4 points but has 4 coordinates"),
        (_coordinates(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\x\\1\\2"), "coordinates are not numbers"),
        (_coordinates(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\nan\\1\\2"), "coordinates are not numbers"),
        (_coordinates(b"1\\2\\3\\4\\5\\6\\7\\8\\9\\1e300\\1\\2"), "or lie kilometres away"),
    ],
)
def test_what_is_damaged_is_refused(
    change: Callable[[pydicom.Dataset], None], reason: str, case: VolumeCase, tmp_path: Path
) -> None:
    structures = {"a": [(0.0, square(3, 5))], "b": [(1.0, square(3, 5))]}
    path = write_structures(tmp_path / "rs.dcm", structures, change=change)
    with pytest.raises(LabelError, match=rf"rs\.dcm: .*{reason}"):
        case.read_labels(path)


def test_a_file_that_is_cut_off_is_refused(case: VolumeCase, tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", {"a": [(0.0, square(3, 5))]})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LabelError, match=r"rs\.dcm: "):
        case.read_labels(path)


def test_the_structure_set_of_pydicom_is_read(tmp_path: Path) -> None:
    path = get_testdata_file("rtstruct.dcm", download=False)
    assert path is not None
    dataset = pydicom.dcmread(path, force=True)  # it has no preamble
    contours = dataset.ROIContourSequence[0].ContourSequence
    places = np.concatenate([np.array(contour.ContourData, dtype=float).reshape(-1, 3) for contour in contours])
    low, high = places.min(axis=0) - 2, places.max(axis=0) + 2
    heights = sorted({float(contour.ContourData[2]) for contour in contours})
    size = tuple(int(n) for n in np.ceil((high - low)[:2]))
    affine = np.diag([-1.0, -1, heights[1] - heights[0], 1])
    affine[:3, 3] = [-low[0], -low[1], heights[0]]
    case = opened(write_nifti(tmp_path / "ct.nii.gz", np.ones((*size, len(heights)), np.uint8), affine))
    mask, labels = read(case, Path(path))
    assert [entry.name for entry in labels.segments] == ["patient"]
    assert "Isocenter 1 (1), Isocenter 2 (1)" in labels.notices[0]
    area = sum(_area(np.array(contour.ContourData, dtype=float).reshape(-1, 3)) for contour in contours)
    assert mask.sum() == pytest.approx(area, rel=0.01)


def _area(places: NDArray[np.float64]) -> float:
    x, y = places[:, 0], places[:, 1]
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


@pytest.mark.data
def test_organs_come_back_and_plastimatch_finds_the_same(shared_data: Path, tmp_path: Path) -> None:
    liver = shared_data / "dicom_seg_ct_liver"
    case = opened(liver / "ct-3slice")
    masks, _ = read(case, liver / "liver.dcm")
    save(case, tmp_path / "mask.rtstruct.dcm", masks, (Segment(1, "liver"),))
    assert np.array_equal(read(case, tmp_path / "mask.rtstruct.dcm")[0], masks)
    found = plastimatch(tmp_path / "mask.rtstruct.dcm", liver / "ct-3slice", tmp_path / "out", "--xor-contours")
    assert np.array_equal(found["liver"] != 0, case.restore(masks) == 1)
