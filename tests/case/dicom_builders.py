"""DICOM files of other kinds than slices of a CT: multi-frame objects, radiographs, mosaics."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid


def item(**values: Any) -> Dataset:
    """Return an item of a sequence."""
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def write_object(path: Path, sop_class: UID | str, modality: str, pixels: NDArray[Any] | None, **values: Any) -> Path:
    """Write one DICOM object.

    Args:
        path: where to.
        sop_class: its class.
        modality: its modality.
        pixels: (row, column), (row, column, 3) of uint8, or (frame, row, column); None for an object without.
        values: further attributes, by keyword.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientName, dataset.PatientID = modality, "Test", "T"
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.4"
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(path)])
    if pixels is not None:
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
        if colour:
            dataset.PlanarConfiguration = 0
        elif pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        bits = pixels.dtype.itemsize * 8
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def csa_header(**values: list[str]) -> bytes:
    """Return a Siemens CSA header (version 2) with these values."""
    out = b"SV10\x04\x03\x02\x01" + struct.pack("<II", len(values), 77)
    for name, texts in values.items():
        kind = b"SH" if name.endswith("Text") else b"FD"
        out += struct.pack("<64si4siii", name.encode(), len(texts), kind, 3, max(6, len(texts)), 77)
        for n in range(max(6, len(texts))):
            text = texts[n].encode() + b"\0" if n < len(texts) else b""
            out += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return out


def write_mosaic(path: Path, volume: NDArray[Any], *, upwards: bool = True, header: bool = True, **values: Any) -> Path:
    """Write a Siemens mosaic of `volume` (slice, row, column), oblique, 0.8 x 0.5 mm pixels and 3 mm slices.

    The first slice begins at -10, 20, 30; `upwards` says whether slices follow along the cross product of the axes.
    """
    count, rows, columns = volume.shape
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.zeros((side * side, rows, columns), volume.dtype)
    tiles[:count] = volume
    mosaic = tiles.reshape(side, side, rows, columns).swapaxes(1, 2).reshape(side * rows, side * columns)
    axes = np.array([[1, 0, 0], [0, np.cos(0.3), np.sin(0.3)]])
    normal = np.cross(*axes) * (1 if upwards else -1)
    corner = np.array([-10.0, 20, 30])
    corner -= axes[0] * 0.5 * (side - 1) * columns / 2 + axes[1] * 0.8 * (side - 1) * rows / 2
    write_object(
        path,
        MRImageStorage,
        "MR",
        np.ascontiguousarray(mosaic),
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        ImagePositionPatient=[round(float(x), 9) for x in corner],
        ImageOrientationPatient=[round(float(x), 9) for x in axes.reshape(-1)],
        PixelSpacing=[0.8, 0.5],
        SpacingBetweenSlices=3,
        **values,
    )
    if header:
        dataset = pydicom.dcmread(path)
        block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        normals = [f"{x:.8f}" for x in normal]
        block.add_new(
            0x10,
            "OB",
            csa_header(AcquisitionMatrixText=["64*64"], NumberOfImagesInMosaic=[str(count)], SliceNormalVector=normals),
        )
        dataset.save_as(path)
    return path
