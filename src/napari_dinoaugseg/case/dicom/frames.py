"""The images of a DICOM file with their geometry: frames, tiles of mosaics, and the references of a segmentation.

A single-frame file has its geometry at the top level, an enhanced object in functional groups (PS3.3 C.7.6.16). Older
multi-frame objects describe their first frame and the step to the others: nuclear medicine with the position in the
Detector Information Sequence and a signed Spacing Between Slices (C.8.4.8, C.8.4.11), others at the top level with
Spacing Between Slices or a vector of slice locations. The pixel size is in Pixel Spacing, or in attributes of
detectors, film scanners and ultrasound machines (10.7, C.8.5.5), even without a position in the patient.

A Siemens mosaic holds the slices of a volume (fMRI, diffusion) as tiles of one image. The number of tiles and the
direction of the slices are only in a private header (CSA), which nibabel reads. The position of a mosaic is that of the
corner of the whole mosaic if it were centred on the slice: the corner of a tile is inset by half of the difference in
size (nibabel, doc/source/dicom/dicom_mosaic.rst).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from napari_dinoaugseg.case.dicom.headers import (
    EXPECTED,
    FRAME_VECTORS,
    GROUPS,
    NO_IMAGES,
    OF_THE_FILE,
    Facts,
    Slice,
    class_name,
    facts_of,
    flat,
    kind_of,
    number,
    numbers,
    read_dataset,
    read_header,
    text,
    value_of,
)
from napari_dinoaugseg.case.files import reading, unreadable
from napari_dinoaugseg.errors import CaseError

# Our own keyword: first row and column of a tile in the mosaic.
TILE = "MosaicTile"
_PARALLEL = 0.99


def is_mosaic(facts: Facts) -> bool:
    """Return whether an image is a mosaic by its Image Type."""
    kinds = facts.get("ImageType")
    return isinstance(kinds, tuple) and "MOSAIC" in kinds and int(facts.get("NumberOfFrames") or 1) == 1


def tiles_of(path: Path, facts: Facts) -> tuple[list[Slice], list[str]]:
    """Return the slices of a mosaic in their order, and a notice.

    Raises:
        CaseError: the header does not describe the tiles.
    """
    count, across = _private(path)
    position, orientation = numbers(facts, "ImagePositionPatient", 3), numbers(facts, "ImageOrientationPatient", 6)
    spacing, step = numbers(facts, "PixelSpacing", 2), number(facts, "SpacingBetweenSlices")
    side = math.ceil(math.sqrt(count or 0))
    rows, columns = int(facts["Rows"]), int(facts["Columns"])
    whole = side > 0 and rows % side == 0 and columns % side == 0
    if not whole or across is None or position is None or orientation is None or spacing is None or not step:
        raise CaseError(_refused(path))
    normal = np.cross(orientation[:3], orientation[3:])
    if abs(float(normal @ across)) < _PARALLEL:
        raise CaseError(_refused(path))
    height, width = rows // side, columns // side
    first = position + orientation[:3] * spacing[1] * (columns - width) / 2
    first = first + orientation[3:] * spacing[0] * (rows - height) / 2
    slices = []
    for k in range(count):
        place = first + k * abs(step) * np.sign(normal @ across) * normal
        own: dict[str, Any] = {"ImagePositionPatient": tuple(float(x) for x in place), "Rows": height, "Columns": width}
        slices.append(Slice(path, {**facts, **own, TILE: (k // side * height, k % side * width)}, None))
    return slices, [f"the images are mosaics of {count} tiles of {width} x {height} pixels: the tiles are the slices"]


def cut(slice_: Slice, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the tile of a mosaic (row, column), or the whole image if it is not a mosaic."""
    if TILE not in slice_.facts:
        return pixels
    row, column = slice_.facts[TILE]
    height, width = slice_.size
    return pixels[row : row + height, column : column + width]


def _private(path: Path) -> tuple[int, NDArray[np.float64] | None]:
    """Return the number of tiles and the direction of the slices (LPS); 0 and None if missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nibabel warns on import that these readers are experimental
        from nibabel.nicom import csareader
    try:
        header = csareader.get_csa_header(read_dataset(path, stop_before_pixels=True))
        if header is None:
            return 0, None
        count, across = csareader.get_n_mosaic(header), csareader.get_slice_normal(header)
    except Exception:  # nibabel raises almost anything for a damaged private header
        return 0, None
    return int(count or 0), None if across is None else np.asarray(across, dtype=float)


def _refused(path: Path) -> str:
    return (
        f"{path}: this is a mosaic, with the slices of a volume as tiles of one image, and its header does not say how "
        "to take it apart. Convert it to NIfTI, for example with dcm2niix."
    )


@dataclass(frozen=True)
class DicomSource:
    """The images that the slices of a volume come from: the references of a segmentation.

    Attributes:
        frames: file and frame (from 1; None for a single-frame file) of each slice, in stored order.
        series: the SeriesInstanceUIDs: one, or one per slice if each slice has its own series.
        instances: the SOPInstanceUID of the file of each slice, in stored order.
        frame_of_reference: the FrameOfReferenceUID; empty if missing or not shared by all slices.
        problem: why no DICOM SEG can refer to these slices; None if one can.
        at_one_place: whether the slices are frames of a loop, which differ in time and not in position.
    """

    frames: tuple[tuple[Path, int | None], ...]
    series: frozenset[str]
    instances: tuple[str, ...]
    frame_of_reference: str
    problem: str | None
    at_one_place: bool = False


def source_of(ordered: Sequence[Slice], *, placed: bool, at_one_place: bool = False) -> DicomSource:
    """Describe the slices of a case.

    Args:
        ordered: the slices in stored order.
        placed: whether their position in the patient is known.
        at_one_place: whether they are frames of a loop.
    """
    references = {str(slice_.facts.get("FrameOfReferenceUID", "")) for slice_ in ordered}
    return DicomSource(
        frames=tuple((slice_.path, slice_.frame) for slice_ in ordered),
        series=frozenset(str(slice_.facts.get("SeriesInstanceUID", "")) for slice_ in ordered) - {""},
        at_one_place=at_one_place,
        instances=tuple(str(slice_.facts.get("SOPInstanceUID", "")) for slice_ in ordered),
        frame_of_reference=references.pop() if len(references) == 1 else "",
        problem=_problem(ordered, placed),
    )


def _problem(ordered: Sequence[Slice], placed: bool) -> str | None:
    if not placed:
        return "the images have no place in the patient"
    if any(TILE in slice_.facts for slice_ in ordered):
        return "its slices are tiles of mosaics, which have no number of their own"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID"):
        if any(not slice_.facts.get(keyword) for slice_ in ordered):
            return f"the images have no {keyword}"
    if len({slice_.facts["FrameOfReferenceUID"] for slice_ in ordered}) > 1:
        return "each image has a FrameOfReferenceUID of its own"
    files = {slice_.path for slice_ in ordered}
    if len(files) > 1 and any(slice_.frame is not None for slice_ in ordered):
        return "the slices are frames of several files"
    return None


PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
_IN_VOLUME = dict(zip(PLACE, ("ImagePositionVolume", "ImageOrientationVolume"), strict=True))
# Our own keywords: frames ordered against the normal of the first, and the number of a frame of a loop.
DESCENDING = "FramesDescend"
FRAME_NUMBER = "FrameNumber"
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_SMALLEST_FRAME = 16  # bytes
_OVER_TIME = frozenset({"FrameTime", "FrameTimeVector"})
_ALONG_SLICES = frozenset({"SliceLocationVector", "GridFrameOffsetVector", "SliceVector"})
_CENTIMETRES = 3  # Physical Units X Direction
_TWO_DIMENSIONAL = 1  # Region Spatial Format


@dataclass(frozen=True)
class ImageFile:
    """One DICOM file that holds an image.

    Attributes:
        path: the file.
        facts: the header values of the whole file.
        slices: its images, in the order of the file.
        has_place: whether any of its images has a position in the patient.
        notices: sentences about its geometry for the user.
    """

    path: Path
    facts: Facts
    slices: Sequence[Slice]
    has_place: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class OtherFile:
    """A DICOM file without an image.

    Attributes:
        path: the file.
        kind: its description, such as "a structured report (SR)".
    """

    path: Path
    kind: str


def read_image_file(path: Path) -> ImageFile | None:
    """Read the header of an image; None for a DICOM object without an image. Raises as `read_object`."""
    found = read_object(path)
    return found if isinstance(found, ImageFile) else None


def read_object(path: Path) -> ImageFile | OtherFile:
    """Read the header of a DICOM file.

    Raises:
        CaseError: not DICOM, damaged, a whole-slide image, or a mosaic with an incomplete header.
    """
    with reading(path, EXPECTED):
        dataset = read_header(path, (*OF_THE_FILE, *GROUPS))
        facts = facts_of(dataset, OF_THE_FILE)
        kind = facts.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
        sized = all(isinstance(facts.get(keyword), int) for keyword in ("Rows", "Columns"))
        if not kind or (not sized and "Image Storage" in class_name(str(kind))):
            raise CaseError(unreadable(path, EXPECTED))  # an image class without a size: the header is cut off
        if not sized or facts.get("Modality") in NO_IMAGES:
            return OtherFile(path, kind_of(str(kind), text(facts, "Modality")))
        if kind == _WHOLE_SLIDE:
            msg = f"{path}: this is a whole-slide image, cut into tiles. Export the region of interest as PNG or TIFF."
            raise CaseError(msg)
        if is_mosaic(facts):
            slices, notices = tiles_of(path, facts)
        else:
            slices, notices = _images(path, dataset, facts)
    has_place = any(keyword in slice_.facts for slice_ in slices for keyword in PLACE)
    return ImageFile(path, facts, slices, has_place, tuple(notices))


def slices_of(path: Path, dataset: Dataset) -> list[Slice]:
    """Return the images of one file, each with its header values.

    Args:
        path: the file.
        dataset: its header, with at least the attributes in `OF_GEOMETRY` and `GROUPS`.

    Raises:
        CaseError: the number of described frames differs from the declared one, or exceeds the size of the file.
    """
    return _images(path, dataset, facts_of(dataset, OF_THE_FILE))[0]


def _images(path: Path, dataset: Dataset, facts: Facts) -> tuple[list[Slice], list[str]]:
    """Return the images of one file, and notices about their geometry."""
    count = int(facts.get("NumberOfFrames") or 1)
    shared = flat(next(iter(value_of(dataset, GROUPS[0]) or ()), Dataset()))
    groups = list(value_of(dataset, GROUPS[1]) or ())
    if groups and len(groups) != count:
        msg = f"{path}: it announces {count} frames but describes {len(groups)}. Export it again."
        raise CaseError(msg)
    each = [{**facts, **shared, **flat(group)} for group in groups] or [{**facts, **shared}]
    _, notice = _pixel_spacing(each[0])
    notices = [notice] if notice else []
    each = [_with_pixel_spacing(found) for found in each]
    if groups:
        if PLACE[0] not in each[0] and _IN_VOLUME[PLACE[0]] in each[0]:
            notices.append("the frames are placed in the volume of the ultrasound probe, not in the patient")
            each = [_in_volume(found) for found in each]
        return [Slice(path, found, number) for number, found in enumerate(each, start=1)], notices
    if count <= 1:
        return [Slice(path, _placed(each[0]), None)], notices
    slices, notice = _alike(path, each[0], count)
    return slices, [*notices, *([notice] if notice else [])]


def _in_volume(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with the position in the volume of the ultrasound probe as the position of the frame."""
    return {**facts, **{keyword: facts[other] for keyword, other in _IN_VOLUME.items() if other in facts}}


def _alike(path: Path, facts: Facts, count: int) -> tuple[list[Slice], str]:
    """Return the frames of a file that describes only the first frame and the step to the others, and a notice."""
    # Even a compressed frame takes an item header and some bytes.
    if count > path.stat().st_size / _SMALLEST_FRAME:
        msg = (
            f"{path}: it announces {count} frames, more than fit into the file. It is damaged; copy or export it again."
        )
        raise CaseError(msg)
    vectors = {keyword: found for keyword in FRAME_VECTORS if (found := numbers(facts, keyword, count)) is not None}
    places, notice = _places(facts, count)
    common = {keyword: value for keyword, value in facts.items() if keyword not in (*PLACE, *FRAME_VECTORS)}
    slices = []
    for k in range(count):
        own = {keyword: float(vector[k]) for keyword, vector in vectors.items()}
        slices.append(Slice(path, {**common, **own, **(places[k] if places else {})}, k + 1))
    return slices, notice


def _places(facts: Facts, count: int) -> tuple[list[dict[str, Any]], str]:
    """Return position and orientation of each frame (empty if the file does not give them), and a notice."""
    origin = origin_of(facts)
    if origin is None or _are_views(facts):
        return [], ""
    position, orientation = origin
    across = np.cross(orientation[:3], orientation[3:])
    common: dict[str, Any] = {PLACE[1]: tuple(float(x) for x in orientation)}
    if over_time(facts):
        return [{**common, PLACE[0]: tuple(float(x) for x in position), FRAME_NUMBER: k} for k in range(count)], ""
    offsets, notice = frame_offsets(facts, count)
    if offsets is None:
        return [], ""
    if offsets[-1] < offsets[0]:
        common[DESCENDING] = True
    return [{**common, PLACE[0]: tuple(float(x) for x in position + offset * across)} for offset in offsets], notice


def origin_of(facts: Facts) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return position (3,) and orientation (6,) of the first image, from the top level or the first detector."""
    detector = next(iter(facts.get("DetectorInformationSequence") or ()), None)
    for found in (facts, facts_of(detector, PLACE) if isinstance(detector, Dataset) else {}):
        position, orientation = numbers(found, PLACE[0], 3), numbers(found, PLACE[1], 6)
        if position is not None and orientation is not None:
            return position, orientation
    return None


def _placed(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a single nuclear medicine image with the position of its detector."""
    origin = None if any(keyword in facts for keyword in PLACE) or _are_views(facts) else origin_of(facts)
    if origin is None:
        return facts
    return {**facts, **{keyword: tuple(float(x) for x in found) for keyword, found in zip(PLACE, origin, strict=True)}}


def _are_views(facts: Facts) -> bool:
    """Return whether nuclear medicine images are projections (planar, or views of a rotation), not slices."""
    kinds = facts.get("ImageType")
    return facts.get("Modality") == "NM" and isinstance(kinds, tuple) and len(kinds) > 2 and "RECON" not in kinds[2]


def over_time(facts: Facts) -> bool:
    """Return whether the frames of a file are a loop over time, from Frame Increment Pointer."""
    pointers = facts.get("FrameIncrementPointer")
    tags = pointers if isinstance(pointers, tuple | MultiValue) else () if pointers is None else (pointers,)
    named = {keyword_for_tag(tag) for tag in tags}
    if named & _ALONG_SLICES:
        return False
    return bool(named & _OVER_TIME) or (not named and any(keyword in facts for keyword in _OVER_TIME))


def are_slices(facts: Facts) -> bool:
    """Return whether frames may be adjacent slices: they are neither projections nor a loop."""
    return not _are_views(facts) and not over_time(facts)


def frame_offsets(facts: Facts, count: int) -> tuple[NDArray[np.float64] | None, str]:
    """Return the distance of each frame from the first along the normal in mm (None if missing), and a notice."""
    for keyword in ("SliceLocationVector", "GridFrameOffsetVector"):
        vector = numbers(facts, keyword, count)
        if vector is not None:
            return np.asarray(vector - vector[0]), ""
    step, notice = number(facts, "SpacingBetweenSlices"), ""
    if not step:
        step = number(facts, "SliceThickness")
        if not step or step < 0:
            return None, ""
        notice = f"the file does not say how far its frames lie apart: the slice thickness, {step:.3g} mm, is taken"
    slices = numbers(facts, "SliceVector", count)
    return step * (np.arange(count, dtype=np.float64) if slices is None else slices - slices[0]), notice


def _with_pixel_spacing(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with Pixel Spacing, from other attributes if it is missing."""
    if "PixelSpacing" in facts:
        return facts
    found, _ = _pixel_spacing(facts)
    return facts if found is None else {**facts, "PixelSpacing": found}


def _pixel_spacing(facts: Facts) -> tuple[tuple[float, float] | None, str]:
    """Return the distance between rows and between columns in mm, and a notice unless it is plain Pixel Spacing."""
    detector = _pair(facts, "ImagerPixelSpacing")
    plain = _pair(facts, "PixelSpacing")
    if plain is not None:
        if detector is None or np.allclose(plain, detector, rtol=1e-3):
            return plain, ""
        return plain, f"the pixel size is the calibrated one, {_mm(plain)}; at the detector it is {_mm(detector)}"
    if detector is not None:
        return detector, f"the pixel size is that at the detector, {_mm(detector)}: it is used as such, uncorrected"
    nominal = _pair(facts, "NominalScannedPixelSpacing")
    if nominal is not None:
        return nominal, f"the pixel size is the nominal one of the scanned film or screen, {_mm(nominal)}"
    plane = _pair(facts, "ImagePlanePixelSpacing")
    if plane is not None:
        return plane, f"the pixel size is that in the plane of the image, {_mm(plane)}"
    return _of_regions(facts)


def _of_regions(facts: Facts) -> tuple[tuple[float, float] | None, str]:
    """Return the pixel size of the 2-D regions of an ultrasound image, if they agree, and a notice."""
    sizes = []
    for region in facts.get("SequenceOfUltrasoundRegions") or ():
        units = [value_of(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
        if units != [_CENTIMETRES] * 2 or value_of(region, "RegionSpatialFormat") not in (_TWO_DIMENSIONAL, None):
            continue
        deltas = facts_of(region, ("PhysicalDeltaY", "PhysicalDeltaX"))
        size = [abs(number(deltas, keyword) or 0.0) * 10 for keyword in ("PhysicalDeltaY", "PhysicalDeltaX")]
        if min(size) > 0:
            sizes.append((size[0], size[1]))
    if not sizes:
        return None, ""
    if not np.allclose(sizes, sizes[0], rtol=1e-3):
        found = " and ".join(dict.fromkeys(_mm(size) for size in sizes))
        return None, f"the regions of this ultrasound image have pixels of several sizes ({found}): none is used"
    return sizes[0], f"the pixel size is that of the ultrasound region, {_mm(sizes[0])}"


def _pair(facts: Facts, keyword: str) -> tuple[float, float] | None:
    found = numbers(facts, keyword, 2)
    return None if found is None or found.min() <= 0 else (float(found[0]), float(found[1]))


def _mm(size: tuple[float, float]) -> str:
    return f"{size[0]:.3g} x {size[1]:.3g} mm"
