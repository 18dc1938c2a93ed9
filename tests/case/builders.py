"""Small real files for the tests of `case`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from napari_dinoaugseg.case import PictureCase, open_case

OBLIQUE = np.array(
    # A rotation about no axis of the patient, exactly orthonormal up to rounding.
    nib.eulerangles.euler2mat(0.21, -0.34, 0.5),
    dtype=float,
)


def numbers(shape: tuple[int, ...], dtype: Any = np.int16, seed: int = 0) -> NDArray[Any]:
    """Return voxels that differ from one another, so that any wrong flip shows."""
    count = int(np.prod(shape))
    order = np.random.default_rng(seed).permutation(count)
    return (order % min(count, 30000 if np.dtype(dtype).itemsize > 1 else 120)).reshape(shape).astype(dtype)


GREY = numbers((8, 10), np.uint8)
COLOUR = numbers((8, 10, 3), np.uint8)


def save(path: Path, array: NDArray[Any] = GREY, **options: Any) -> Path:
    """Write a picture with Pillow; `options` are those of the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def pictures(path: Any, **options: Any) -> PictureCase:
    """Open a case of pictures."""
    case = open_case(path, **options)
    assert isinstance(case, PictureCase)
    return case


def write_nifti(path: Path, array: NDArray[Any], affine: NDArray[Any] | None = None, **header: Any) -> Path:
    """Write a NIfTI file with both codes set, and further header fields."""
    affine = np.diag([1.0, 1.5, 4.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def write_dicom(
    folder: Path,
    volume: NDArray[Any],
    *,
    directions: NDArray[Any] | None = None,
    spacing: tuple[float, float] = (0.8, 0.5),
    step: float = 3.0,
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    slope: float = 1,
    intercept: float = -1024,
    series_uid: str = "1.2.826.0.1.3680043.8.498.1",
    description: str = "Abdomen",
    names: Callable[[int], str] | None = None,
    change: Callable[[int, pydicom.Dataset], None] | None = None,
) -> list[Path]:
    """Write a CT series, one file per slice of `volume` (slice, row, column).

    `directions` holds the directions of increasing column and row as columns; slices follow along their cross product.
    """
    folder.mkdir(parents=True, exist_ok=True)
    axes = np.eye(3)[:, :2] if directions is None else directions
    normal = np.cross(axes[:, 0], axes[:, 1])
    paths = []
    for k, pixels in enumerate(volume):
        dataset = _ct(CTImageStorage, [series_uid, str(k)], pixels)
        dataset.SeriesInstanceUID, dataset.SeriesDescription = series_uid, description
        dataset.InstanceNumber = 100 - k  # against the order of the positions, on purpose
        dataset.ImagePositionPatient = [round(float(x), 6) for x in np.array(origin) + k * step * normal]
        dataset.ImageOrientationPatient = [round(float(x), 9) for x in axes.T.reshape(-1)]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing), step
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        if change is not None:
            change(k, dataset)
        path = folder / (names(k) if names is not None else f"IM{k:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(
    path: Path,
    volume: NDArray[Any],
    *,
    order: Sequence[int] | None = None,
    directions: NDArray[Any] | None = None,
    spacing: tuple[float, float] = (0.8, 0.5),
    step: float = 3.0,
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    slope: float = 1,
    intercept: float = -1024,
    change: Callable[[int, pydicom.Dataset, pydicom.Dataset], None] | None = None,
) -> Path:
    """Write an Enhanced CT file whose frames are the slices of `volume` (slice, row, column).

    `order` gives the slice of each frame. `change` gets each frame's slice, its functional groups and the file.
    """
    axes = np.eye(3)[:, :2] if directions is None else directions
    normal = np.cross(axes[:, 0], axes[:, 1])
    slices = list(range(len(volume))) if order is None else list(order)
    dataset = _ct(EnhancedCTImageStorage, [str(path)], volume)
    dataset.SeriesInstanceUID = "1.2.5"
    dataset.NumberOfFrames = len(slices)
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=list(spacing), SliceThickness=step)]
    orientation = [round(float(x), 9) for x in axes.T.reshape(-1)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=orientation)]
    shared.PixelValueTransformationSequence = [_item(RescaleSlope=slope, RescaleIntercept=intercept)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k in slices:
        position = [round(float(x), 6) for x in np.array(origin) + k * step * normal]
        group = _item(
            PlanePositionSequence=[_item(ImagePositionPatient=position)],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1)],
        )
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = np.ascontiguousarray(volume[slices]).tobytes()
    if change is not None:
        for k, group in zip(slices, groups, strict=True):
            change(k, group, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _ct(sop_class: UID, identity: list[str], pixels: NDArray[Any]) -> pydicom.Dataset:
    """Begin a CT image of the test patient: what slices and multi-frame files have in common.

    `identity` makes its SOP Instance UID; `pixels` are (..., row, column).
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=identity)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Test", "T"
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.4"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    return dataset


def _item(**values: Any) -> pydicom.Dataset:
    item = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def listing(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder with its content: to show that nothing was written or changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
