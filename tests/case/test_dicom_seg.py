"""DICOM SEG out and in: every voxel at its place, with its class; what cannot be right is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom import _standard_utils
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_dinoaugseg.case import VolumeCase, align, open_case, read_mask_volume
from napari_dinoaugseg.case.case import ReadLabels, Segment
from napari_dinoaugseg.case.labels import read_mask_volumes
from napari_dinoaugseg.errors import CaseError, LabelError, OutputError
from tests.case.builders import OBLIQUE, listing, numbers, write_dicom, write_enhanced, write_nifti

VOLUME = numbers((6, 5, 7), np.uint16)
CLASSES = (Segment(3, "left kidney", "#e69f00"), Segment(7, "Tumour"), Segment(300, "Größe\\肝", by_hand=True))


def opened(path: Path, **options: Any) -> VolumeCase:
    case = open_case(path, **options)
    assert isinstance(case, VolumeCase)
    return case


def painted(
    case: VolumeCase, numbers_of: tuple[int, ...] = (3, 7, 300), empty: tuple[int, ...] = (0, 3)
) -> NDArray[Any]:
    """Return labels (slice, row, column) without any symmetry; some slices are left empty."""
    shape = (case.n_slices, *case.slice_shape(0))
    masks = np.random.default_rng(1).choice([0, 0, *numbers_of], size=shape).astype(np.uint16)
    masks[list(empty)] = 0
    return masks


def save(case: VolumeCase, path: Path, masks: NDArray[Any], segments: tuple[Segment, ...] = CLASSES) -> pydicom.Dataset:
    case.check_output(path)
    case.write_mask(path, masks.__getitem__, segments)
    return pydicom.dcmread(path)


def read(case: VolumeCase, path: Path) -> NDArray[Any]:
    return np.stack(list(case.read_labels(path, range(case.n_slices)).values()))


@pytest.fixture
def case(tmp_path: Path) -> VolumeCase:
    write_dicom(tmp_path / "ct", VOLUME, directions=OBLIQUE[:, :2])
    return opened(tmp_path / "ct")


@pytest.fixture
def rewrite(case: VolumeCase, tmp_path: Path) -> Callable[[Callable[[pydicom.Dataset], None]], Path]:
    """Write the masks of `case`, change the file, and return its path."""

    def write(change: Callable[[pydicom.Dataset], None]) -> Path:
        dataset = save(case, tmp_path / "mask.dcm", painted(case))
        change(dataset)
        dataset.save_as(tmp_path / "mask.dcm")
        return tmp_path / "mask.dcm"

    return write


# --- what is written ---


def test_the_names_of_the_segments_come_back(case: VolumeCase, tmp_path: Path) -> None:
    save(case, tmp_path / "mask.dcm", painted(case))
    read_back = case.read_labels(tmp_path / "mask.dcm")
    assert isinstance(read_back, ReadLabels)
    names = [(entry.number, entry.name.replace("\\", "/")) for entry in CLASSES]  # DICOM has another use for it
    assert [(entry.number, entry.name) for entry in read_back.segments] == names


def test_labels_come_back_with_their_numbers(case: VolumeCase, tmp_path: Path) -> None:
    masks = painted(case)
    dataset = save(case, tmp_path / "mask.dcm", masks)
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), masks)
    assert [segment.SegmentNumber for segment in dataset.SegmentSequence] == [1, 2, 3]
    # Three classes on four slices; frames without a voxel are left out.
    assert dataset.NumberOfFrames == 12
    array, grid = read_mask_volume(tmp_path / "mask.dcm")
    slices = case.to_slices(np.zeros(case.grid.shape))
    assert array.shape == (7, 5, 5)
    assert slices.shape[0] == 6
    assert np.allclose(grid.affine[:3, :3], case.grid.affine[:3, :3], atol=1e-6)


def test_segments_say_what_they_are(case: VolumeCase, tmp_path: Path) -> None:
    kidney, tumour, unknown = save(case, tmp_path / "mask.dcm", painted(case)).SegmentSequence
    assert [segment.SegmentLabel for segment in (kidney, tumour, unknown)] == ["left kidney", "Tumour", "Größe/肝"]
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in (kidney, tumour, unknown)]
    assert [code.CodeMeaning for code in codes] == ["Kidney", "Neoplasm", "Tissue"]
    assert codes[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    categories = [segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning for segment in (kidney, tumour, unknown)]
    assert categories == ["Anatomical Structure", "Morphologically Abnormal Structure", "Tissue"]
    assert [segment.SegmentAlgorithmType for segment in (kidney, tumour, unknown)] == [*["SEMIAUTOMATIC"] * 2, "MANUAL"]
    assert kidney.SegmentAlgorithmName == "napari-dinoaugseg"
    orange = highdicom.color.CIELabColor.from_rgb(0xE6, 0x9F, 0)
    assert tuple(kidney.RecommendedDisplayCIELabValue) == tuple(orange.value)
    assert "RecommendedDisplayCIELabValue" not in tumour


def test_the_file_belongs_to_patient_study_and_series(tmp_path: Path) -> None:
    def someone(_: int, dataset: pydicom.Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", "Müller^Jürgen"
        dataset.PatientBirthDate, dataset.PatientSex, dataset.AccessionNumber = "19500101", "M", "A1"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200102", "101112", "S1"
        dataset.ReferringPhysicianName, dataset.PatientIdentityRemoved = "Doctor", "NO"

    write_dicom(tmp_path / "ct", VOLUME, change=someone)
    case = opened(tmp_path / "ct")
    dataset = save(case, tmp_path / "mask.dcm", painted(case))
    source = pydicom.dcmread(tmp_path / "ct" / "IM000.dcm")
    assert str(dataset.PatientName) == "Müller^Jürgen"
    for keyword in (
        *("PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime", "StudyID"),
        *("StudyInstanceUID", "FrameOfReferenceUID", "ReferringPhysicianName", "PatientIdentityRemoved"),
    ):
        assert dataset[keyword].value == source[keyword].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    reference = dataset.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == source.SeriesInstanceUID
    uids = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "ct").iterdir()}
    assert {item.ReferencedSOPInstanceUID for item in reference.ReferencedInstanceSequence} == uids
    # Each frame names the one image it lies on.
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        position = group.PlanePositionSequence[0].ImagePositionPatient
        files = [pydicom.dcmread(path) for path in (tmp_path / "ct").iterdir()]
        (own,) = [file for file in files if file.SOPInstanceUID == image.ReferencedSOPInstanceUID]
        assert np.allclose(own.ImagePositionPatient, position)


def test_no_more_of_the_person_goes_out_than_the_standard_demands(tmp_path: Path) -> None:
    secrets = {
        "PatientComments": "secret one", "PatientAddress": "secret two", "OtherPatientNames": "secret^three",
        "AdditionalPatientHistory": "secret four", "InstitutionName": "secret five", "OperatorsName": "secret^six",
        "PatientAge": "070Y", "PatientWeight": 71.5, "Occupation": "secret seven", "MedicalRecordLocator": "secret 8",
        "StudyDescription": "secret nine", "SeriesDescription": "secret ten", "PerformingPhysicianName": "secret^11",
    }  # fmt: skip

    def someone(_: int, dataset: pydicom.Dataset) -> None:
        for keyword, value in secrets.items():
            setattr(dataset, keyword, value)
        dataset.private_block(0x0029, "SCANNER", create=True).add_new(0x01, "LO", "secret 12")

    write_dicom(tmp_path / "ct", VOLUME, change=someone)
    case = opened(tmp_path / "ct")
    dataset = save(case, tmp_path / "mask.dcm", painted(case))
    assert b"secret" not in (tmp_path / "mask.dcm").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "mask.dcm").read_bytes()
    assert not any(keyword in dataset for keyword in ("PatientAge", "PatientWeight"))
    assert str(dataset.get("ContentCreatorName")) in ("", "None")


def test_what_the_source_does_not_say_is_left_empty(tmp_path: Path) -> None:
    def bare(_: int, dataset: pydicom.Dataset) -> None:
        del dataset.PatientName, dataset.PatientID, dataset.SliceThickness

    write_dicom(tmp_path / "ct", VOLUME, change=bare)
    case = opened(tmp_path / "ct")
    dataset = save(case, tmp_path / "mask.dcm", painted(case))
    assert not dataset.PatientName
    assert not dataset.PatientID
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), painted(case))


def test_classes_that_do_not_occur_are_described_and_those_without_a_name_numbered(
    case: VolumeCase, tmp_path: Path
) -> None:
    masks = np.where(painted(case) == 7, 7, 0)
    dataset = save(case, tmp_path / "mask.dcm", masks, (Segment(2, "Liver"), Segment(9, "Spleen")))
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["Liver", "class 7", "Spleen"]
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), masks)


def test_an_empty_mask_is_a_file_that_says_so(case: VolumeCase, tmp_path: Path) -> None:
    nothing = np.zeros((case.n_slices, *case.slice_shape(0)), np.uint8)
    dataset = save(case, tmp_path / "mask.dcm", nothing)
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["left kidney", "Tumour", "Größe/肝"]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert not read(case, tmp_path / "mask.dcm").any()
    with pytest.raises(LabelError, match="every voxel is background"):
        case.read_labels(tmp_path / "mask.dcm")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=r"mask\.dcm: a DICOM SEG needs at least one class"):
        case.write_mask(tmp_path / "mask.dcm", nothing.__getitem__)
    assert listing(tmp_path) == before


def test_many_classes_take_more_than_a_byte(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", numbers((2, 20, 20), np.uint16))
    case = opened(tmp_path / "ct")
    masks = np.arange(800, dtype=np.uint16).reshape(2, 20, 20) % 300 * 2
    save(case, tmp_path / "mask.dcm", masks, ())
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), masks)


@pytest.mark.parametrize("name", ["x" * 200, "\\\\", "  ", "a\nb", "\x1b[31m"])
def test_any_name_makes_a_valid_label(name: str, case: VolumeCase, tmp_path: Path) -> None:
    dataset = save(case, tmp_path / "mask.dcm", painted(case, (3,)), (Segment(3, name),))
    label = dataset.SegmentSequence[0].SegmentLabel
    assert 0 < len(label) <= 64
    assert "\\" not in label
    assert label.isprintable()


def test_a_source_that_is_gone_or_broken_is_said_and_nothing_is_left(case: VolumeCase, tmp_path: Path) -> None:
    before = listing(tmp_path)
    gone = (tmp_path / "ct" / "IM002.dcm").rename(tmp_path / "IM002.dcm")
    with pytest.raises(OutputError, match=r"mask\.dcm: the images .*IM002\.dcm: No such file") as caught:
        case.write_mask(tmp_path / "mask.dcm", painted(case).__getitem__)
    assert ".part" not in str(caught.value)
    gone.rename(tmp_path / "ct" / "IM002.dcm")
    assert listing(tmp_path) == before


def test_frames_of_a_multi_frame_file_are_referred_to_by_number(tmp_path: Path) -> None:
    order = [3, 1, 0, 5, 4, 2]
    case = opened(write_enhanced(tmp_path / "ct" / "ct.dcm", VOLUME, order=order))
    masks = painted(case)
    dataset = save(case, tmp_path / "mask.dcm", masks)
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), masks)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        assert order[image.ReferencedFrameNumber - 1] == round((height - 30) / 3)
    empty = save(case, tmp_path / "empty.dcm", np.zeros_like(masks))
    assert empty.NumberOfFrames == len(CLASSES)
    assert not read(case, tmp_path / "empty.dcm").any()


def test_the_mask_of_one_phase_belongs_to_that_phase(tmp_path: Path) -> None:
    for phase in range(2):

        def change(k: int, dataset: pydicom.Dataset, phase: int = phase) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{phase}.{k}"
            dataset.TemporalPositionIdentifier = phase + 1

        write_dicom(tmp_path / "mr", VOLUME, names=lambda k, phase=phase: f"{phase}{k}.dcm", change=change)
    early, late = (opened(tmp_path / "mr", component=phase) for phase in range(2))
    masks = painted(early)
    save(early, tmp_path / "mask.dcm", masks)
    assert np.array_equal(read(early, tmp_path / "mask.dcm"), masks)
    with pytest.raises(LabelError, match=r"mask\.dcm: this segmentation belongs to another volume of this series"):
        late.read_labels(tmp_path / "mask.dcm")


def test_a_confidence_is_a_fractional_segmentation(case: VolumeCase, tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((case.n_slices, *case.slice_shape(0))).astype(np.float32)
    case.write_confidence(tmp_path / "sure.dcm", maps.__getitem__)
    volume = highdicom.seg.segread(tmp_path / "sure.dcm").get_volume()
    expected = case.restore(maps).transpose(2, 1, 0)
    got = volume.array[..., 0]
    # highdicom gives the slices in either direction.
    assert min(np.abs(got - expected).max(), np.abs(got[::-1] - expected).max()) <= 0.5 / 255 + 1e-6
    with pytest.raises(LabelError, match=r"sure\.dcm.*fractional"):
        case.read_labels(tmp_path / "sure.dcm")


# --- where it cannot be written ---


def test_only_a_dicom_series_has_a_dicom_mask(case: VolumeCase, tmp_path: Path) -> None:
    assert case.mask_suffixes[0] == ".nii.gz"
    assert case.mask_suffixes[-2:] == (".dcm", ".rtstruct.dcm")
    case.check_output(tmp_path / "mask.dcm")
    nifti = opened(write_nifti(tmp_path / "image.nii.gz", numbers((4, 5, 6))))
    assert ".dcm" not in nifti.mask_suffixes
    with pytest.raises(OutputError, match=r"mask\.dcm: a DICOM SEG refers.*this case is not a DICOM series"):
        nifti.check_output(tmp_path / "mask.dcm")
    with pytest.raises(OutputError, match="overwrite an input"):
        case.check_output(tmp_path / "ct" / "IM001.dcm")


def test_a_series_that_nothing_can_refer_to_has_none_either(tmp_path: Path) -> None:
    def nowhere(_: int, dataset: pydicom.Dataset) -> None:
        del dataset.FrameOfReferenceUID

    def scattered(k: int, dataset: pydicom.Dataset) -> None:
        dataset.FrameOfReferenceUID = f"1.2.4.{k}"

    for name, change, why in (("a", nowhere, "no FrameOfReferenceUID"), ("b", scattered, "of its own")):
        write_dicom(tmp_path / name, VOLUME, change=change)
        case = opened(tmp_path / name)
        assert ".dcm" not in case.mask_suffixes
        with pytest.raises(OutputError, match=f"{why}.*nii.gz"):
            case.check_output(tmp_path / "mask.dcm")


# --- what is read ---


def test_the_order_of_frames_does_not_matter(
    case: VolumeCase, rewrite: Callable[[Callable[[pydicom.Dataset], None]], Path]
) -> None:
    def shuffle(dataset: pydicom.Dataset) -> None:
        count = int(dataset.NumberOfFrames)
        order = np.random.default_rng(3).permutation(count)
        pixels = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        frames = pixels[: count * 35].reshape(count, 35)[order]
        packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]

    assert np.array_equal(read(case, rewrite(shuffle)), painted(case))


def test_frames_that_run_the_other_way_are_turned(case: VolumeCase, tmp_path: Path) -> None:
    """Columns, rows and slices may all run differently: a writer may lay its frames as it likes."""
    masks = painted(case)
    native = case.restore(masks)
    sources = [pydicom.dcmread(path) for path, _ in case._voxels.header.frames]
    for keyword in ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PatientBirthDate", "PatientSex"):
        for source in sources:
            setattr(source, keyword, "")
    lps = np.diag([-1.0, -1, 1, 1]) @ case.grid.affine
    turned = native[::-1, :, ::-1].transpose(2, 0, 1)  # (slice, column, row)
    affine = lps @ np.array([[0, -1, 0, 6], [0, 0, 1, 0], [-1, 0, 0, 5], [0, 0, 0, 1.0]])
    volume = highdicom.Volume(
        array=(np.searchsorted([0, 3, 7, 300], turned)).astype(np.uint8),
        affine=affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
    )
    code = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    segments = [
        highdicom.seg.SegmentDescription(n, name, code, code, "MANUAL")
        for n, name in enumerate(("three", "seven", "many"), start=1)
    ]
    made = highdicom.seg.Segmentation(
        sources, volume, "BINARY", segments, highdicom.UID(), 1, highdicom.UID(), 1, "maker", "model", "1", "0"
    )
    made.save_as(tmp_path / "turned.dcm")
    assert np.array_equal(read(case, tmp_path / "turned.dcm"), np.searchsorted([0, 3, 7, 300], masks))
    array, grid = read_mask_volume(tmp_path / "turned.dcm")
    assert array.shape[:2] == (5, 7)
    both = read_mask_volumes(tmp_path / "turned.dcm", tmp_path / "turned.dcm")
    ours, our_grid = both.second, both.grid
    assert np.array_equal(align(ours, our_grid, grid), array)


def label_map(dataset: pydicom.Dataset, count: int) -> None:
    """Turn a binary SEG of ours into a label map: one frame a slice, pixels are segment numbers."""
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames: dict[str, Any] = {}
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        own = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        del group.SegmentIdentificationSequence
        key = str(group.PlanePositionSequence[0].ImagePositionPatient)
        pixels = frames.setdefault(key, [group, np.zeros(35, np.uint8)])[1]
        pixels[bits[n * 35 : n * 35 + 35] > 0] = own
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    dataset.SegmentationType = "LABELMAP"
    dataset.add_new("PixelPaddingValue", "US", 0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.NumberOfFrames = len(frames)
    dataset.PerFrameFunctionalGroupsSequence = [group for group, _ in frames.values()]
    data = b"".join(pixels.tobytes() for _, pixels in frames.values())
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    assert len(frames) == count


def test_a_label_map_is_read(case: VolumeCase, rewrite: Callable[[Callable[[pydicom.Dataset], None]], Path]) -> None:
    assert np.array_equal(read(case, rewrite(lambda dataset: label_map(dataset, 4))), painted(case))


def fractional(dataset: pydicom.Dataset, highest: int) -> None:
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    data = (bits[: int(dataset.NumberOfFrames) * 35] * np.uint8(highest)).tobytes()
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
    dataset.MaximumFractionalValue = 255
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = data + b"\0" * (len(data) % 2)


def test_a_fractional_segmentation_is_read_where_it_is_binary(
    case: VolumeCase, rewrite: Callable[[Callable[[pydicom.Dataset], None]], Path]
) -> None:
    assert np.array_equal(read(case, rewrite(lambda dataset: fractional(dataset, 255))), painted(case))
    with pytest.raises(LabelError, match=r"'left kidney' is fractional.*threshold"):
        case.read_labels(rewrite(lambda dataset: fractional(dataset, 128)))


def overlap(dataset: pydicom.Dataset) -> None:
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    bits[:] = 1
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed


def shift(dataset: pydicom.Dataset) -> None:
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(x) + 0.2 for x in place.ImagePositionPatient]


def beyond(dataset: pydicom.Dataset) -> None:
    normal = np.cross(OBLIQUE[:, 0], OBLIQUE[:, 1])
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        place.ImagePositionPatient = list(np.round(np.array(place.ImagePositionPatient, float) + 30 * normal, 6))


def put(keyword: str, value: Any) -> Callable[[pydicom.Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def finer(dataset: pydicom.Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.75, 0.5]


def other_series(dataset: pydicom.Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4.5"


def other_images(dataset: pydicom.Dataset) -> None:
    for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence:
        item.ReferencedSOPInstanceUID += ".9"


def same_numbers(dataset: pydicom.Dataset) -> None:
    for segment in dataset.SegmentSequence:
        segment.SegmentNumber = 1


def undescribed(dataset: pydicom.Dataset) -> None:
    dataset.SegmentSequence = list(dataset.SegmentSequence)[:1]


def placeless(dataset: pydicom.Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (overlap, "segments 'left kidney' and 'Tumour' overlap"),
        (shift, "does not fit ct: its frames lie up to 0.3"),
        (beyond, "does not fit ct: its frames lie where the image has no slice"),
        (finer, "does not fit ct: the frames have another pixel size or direction"),
        (put("FrameOfReferenceUID", "1.2.4.9"), "belongs to another frame of reference"),
        (other_series, "belongs to another series"),
        (other_images, "belongs to another volume of this series"),
        (same_numbers, "two segments have the number 1"),
        (undescribed, "belongs to the segment 2, which nothing describes"),
        (put("SegmentSequence", []), "describes no segment"),
        (placeless, "frame 3: it has no usable ImagePositionPatient"),
        (put("NumberOfFrames", 5), "announces 5 frames but describes 12"),
        (put("PixelData", b"\0\0"), "cannot be read as a DICOM"),
        (put("Rows", 65000), "cannot be read as a DICOM"),
    ],
)
def test_a_segmentation_that_cannot_be_right_is_refused(
    change: Callable[[pydicom.Dataset], None],
    words: str,
    case: VolumeCase,
    rewrite: Callable[[Callable[[pydicom.Dataset], None]], Path],
) -> None:
    path = rewrite(change)
    with pytest.raises(LabelError) as caught:
        case.read_labels(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_another_size_of_frames_is_refused(case: VolumeCase, tmp_path: Path) -> None:
    write_dicom(tmp_path / "larger", numbers((6, 6, 7), np.uint16), directions=OBLIQUE[:, :2])
    other = opened(tmp_path / "larger")
    save(other, tmp_path / "mask.dcm", painted(other))
    with pytest.raises(LabelError, match="its frames have 7 x 6 pixels, the slices 7 x 5"):
        case.read_labels(tmp_path / "mask.dcm")


@pytest.mark.parametrize("name", ["IM000.dcm", "IM000"])
def test_an_image_is_no_segmentation(name: str, case: VolumeCase, tmp_path: Path) -> None:
    image = (tmp_path / "ct" / "IM000.dcm").rename(tmp_path / name)
    with pytest.raises(LabelError, match=r"IM000.*this is not a DICOM segmentation \(CT Image Storage\)"):
        case.read_labels(image)
    with pytest.raises(LabelError, match="no such file"):
        case.read_labels(tmp_path / "nothing.dcm")


def test_a_damaged_class_cannot_write_to_the_terminal(case: VolumeCase, tmp_path: Path) -> None:
    save(case, tmp_path / "mask.dcm", painted(case))
    data = (tmp_path / "mask.dcm").read_bytes()
    (tmp_path / "mask.dcm").write_bytes(
        data.replace(b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.\x1b[31m.1.66.4")
    )
    with pytest.raises(LabelError, match="not a DICOM segmentation") as caught:
        case.read_labels(tmp_path / "mask.dcm")
    assert str(caught.value).isprintable()


def test_a_segmentation_is_no_case(case: VolumeCase, tmp_path: Path) -> None:
    save(case, tmp_path / "mask.dcm", painted(case))
    with pytest.raises(CaseError, match=r"mask\.dcm: this is a segmentation \(DICOM SEG\), not an image"):
        open_case(tmp_path / "mask.dcm")


def test_a_file_without_its_suffix_is_read_too(case: VolumeCase, tmp_path: Path) -> None:
    save(case, tmp_path / "mask.dcm", painted(case))
    (tmp_path / "mask.dcm").rename(tmp_path / "mask")
    assert np.array_equal(read(case, tmp_path / "mask"), painted(case))


def test_an_image_converted_to_nifti_takes_the_segmentation_by_place(case: VolumeCase, tmp_path: Path) -> None:
    masks = painted(case)
    save(case, tmp_path / "mask.dcm", masks)
    # Columns run the other way, as converters do it.
    affine = case.grid.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    native = np.ascontiguousarray(case._voxels.stored[:, ::-1])
    converted = opened(write_nifti(tmp_path / "image.nii.gz", native, affine))
    assert np.array_equal(read(converted, tmp_path / "mask.dcm"), masks)


def test_rounded_positions_of_a_long_series_do_not_add_up(tmp_path: Path) -> None:
    def rounded(_: int, dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [round(float(n), 1) for n in dataset.ImagePositionPatient]

    write_dicom(tmp_path / "ct", numbers((90, 3, 4), np.uint16), step=1.25, change=rounded)
    case = opened(tmp_path / "ct")
    masks = np.zeros((90, 3, 4), np.uint8)
    masks[[2, 3], 0, 1], masks[85, 2, 3] = 1, 2
    save(case, tmp_path / "mask.dcm", masks, ())
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), masks)


# --- two masks that are compared ---


def test_masks_are_compared_on_a_grid_that_holds_both(case: VolumeCase, tmp_path: Path) -> None:
    first, second = painted(case, empty=(0, 1, 2)), painted(case, empty=(2, 4, 5))
    for name, masks in (("first", first), ("second", second)):
        save(case, tmp_path / f"{name}.dcm", masks)
        case.write_mask(tmp_path / f"{name}.nii.gz", masks.__getitem__)
    for one, other in (("dcm", "dcm"), ("dcm", "nii.gz"), ("nii.gz", "dcm"), ("nii.gz", "nii.gz")):
        both = read_mask_volumes(tmp_path / f"first.{one}", tmp_path / f"second.{other}")
        found, true, grid = both.first, both.second, both.grid
        assert found.shape == true.shape == grid.shape
        on_case = [case.to_slices(align(mask, grid, case.grid)) for mask in (found, true)]
        assert np.array_equal(on_case[0], first)
        assert np.array_equal(on_case[1], second)


def test_masks_of_two_images_are_not_compared(case: VolumeCase, tmp_path: Path) -> None:
    write_dicom(tmp_path / "other", VOLUME, origin=(0, 0, 0))
    other = opened(tmp_path / "other")
    for name, one in (("first", case), ("second", other)):
        save(one, tmp_path / f"{name}.dcm", painted(one))
        one.write_mask(tmp_path / f"{name}.nii.gz", painted(one).__getitem__)
    for first, second in (("dcm", "dcm"), ("dcm", "nii.gz"), ("nii.gz", "dcm"), ("nii.gz", "nii.gz")):
        with pytest.raises(LabelError, match=" fit ") as caught:
            read_mask_volumes(tmp_path / f"first.{first}", tmp_path / f"second.{second}")
        assert f"first.{first}" in str(caught.value)
        assert f"second.{second}" in str(caught.value)


def test_frames_far_away_do_not_ask_for_all_the_memory(
    case: VolumeCase, rewrite: Callable[[Callable[[pydicom.Dataset], None]], Path]
) -> None:
    def far(dataset: pydicom.Dataset) -> None:
        place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        normal = np.cross(OBLIQUE[:, 0], OBLIQUE[:, 1])
        place.ImagePositionPatient = [
            float(f"{x:.9g}") for x in np.array(place.ImagePositionPatient, float) + 3e8 * normal
        ]

    with pytest.raises(LabelError, match=r"mask\.dcm.*not evenly spaced"):
        read_mask_volume(rewrite(far))


@pytest.mark.data
def test_a_real_segmentation_lies_on_its_series(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom_seg_ct_liver"
    case = opened(folder / "ct-3slice")
    labels = read(case, folder / "liver.dcm")
    assert np.array_equal(labels, read(case, folder / "liver_seg.nrrd"))
    assert labels.sum() > 100_000
    save(case, tmp_path / "mask.dcm", labels, (Segment(1, "Liver"),))
    assert np.array_equal(read(case, tmp_path / "mask.dcm"), labels)
    other = opened(shared_data / "totalsegmentator_examples" / "ct_dicom" / "example_ct_dicom")
    with pytest.raises(LabelError, match=r"liver\.dcm: this segmentation belongs to another frame of reference"):
        other.read_labels(folder / "liver.dcm")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    ),
    st.sampled_from([None, 1, "\t"]),
)
def test_the_tables_of_highdicom_are_read_as_python_reads_them(table: Any, indent: int | str | None) -> None:
    assert _standard_utils.json.loads(json.dumps(table, indent=indent)) == table
