"""Small real files for the tests of `study`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = pydicom.Dataset()
        dataset.file_meta = meta
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "Test", "T"
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.4"
        dataset.SeriesInstanceUID, dataset.SeriesDescription = series_uid, description
        dataset.InstanceNumber = 100 - k  # against the order of the positions, on purpose
        dataset.ImagePositionPatient = [round(float(x), 6) for x in np.array(origin) + k * step * normal]
        dataset.ImageOrientationPatient = [round(float(x), 9) for x in axes.T.reshape(-1)]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing), step
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        if change is not None:
            change(k, dataset)
        path = folder / (names(k) if names is not None else f"IM{k:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def listing(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder with its content: to show that nothing was written or changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
