"""Open several DICOM radiographs, photographs or ultrasound stills as a case of pictures.

They have no position in the patient and may differ in size, so they are not slices of a volume.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from napari_dinoaugseg.case.dicom.frames import ImageFile, read_image_file
from napari_dinoaugseg.case.dicom.headers import numbers, text
from napari_dinoaugseg.case.dicom.pixels import as_seen, is_inverted, read_pixels
from napari_dinoaugseg.case.dicom.series import Found, matching_series, quiet, series_of, without_copies
from napari_dinoaugseg.case.files import DICOM_SUFFIXES, counted, listed, natural_key
from napari_dinoaugseg.case.masks import MaskOptions
from napari_dinoaugseg.case.picture_files import Orientation, Picture
from napari_dinoaugseg.case.pictures import PictureCase
from napari_dinoaugseg.errors import CaseError

# Images of these classes are slices, even without a position.
_SLICES = frozenset(
    {
        *(CTImageStorage, EnhancedCTImageStorage, MRImageStorage, EnhancedMRImageStorage),
        *(PositronEmissionTomographyImageStorage, EnhancedPETImageStorage),
    }
)


def single_pictures(found: Found, series: str | None) -> list[ImageFile]:
    """Return the images that are pictures of one case; empty if they are slices, or if there is only one.

    Args:
        found: the images.
        series: as for `read_dicom`; None takes pictures of all series.
    """
    images = [image for group in matching_series(series_of(found.images), series) for image in group.images]
    singles = [image for image in images if is_picture(image)]
    loops = [image for image in images if len(image.slices) > 1 and not image.has_place]
    return singles if len(singles) > 1 and len(singles) + len(loops) == len(images) else []


def is_picture(image: ImageFile) -> bool:
    """Return whether a file is a single image that is not a slice of a volume."""
    return len(image.slices) == 1 and not image.has_place and text(image.facts, "SOPClassUID") not in _SLICES


def picture_case(found: Found, images: list[ImageFile], masks: MaskOptions | None = None) -> PictureCase:
    """Return images as a case of pictures, sorted by path, without loops among them.

    Args:
        found: the images.
        images: the pictures among them.
        masks: how to read masks of these pictures.

    Raises:
        CaseError: damaged pixels, two different files with one SOPInstanceUID, or two with one name.
    """
    images, notices = without_copies(images)
    images.sort(key=lambda image: natural_key(image.path.as_posix()))
    paths = [image.path.absolute() for image in images]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    names = [_name(path.relative_to(root)) for path in paths]
    files = [image.path for image in images]
    case = PictureCase(found.path, files, masks, decoder=decode_picture, names=names)
    modalities = {text(image.facts, "Modality") for image in images}
    case.modality = (modalities.pop() or None) if len(modalities) == 1 else None
    loops = [image.path.name for image in found.images if len(image.slices) > 1]
    if loops:
        notices.append(f"{counted(len(loops), 'file')} of several frames left out: {listed(loops)}")
    inverted = sum(is_inverted(image.slices[0]) for image in images)
    if inverted:
        which = "the pictures ask" if inverted == len(images) else f"of {len(images)} pictures {inverted} ask"
        notices.append(f"{which} for inverted grey values (MONOCHROME1): shown so, bright where they are dense")
    sizes = list(dict.fromkeys(notice for image in images for notice in image.notices))
    case.notices += [f"{len(images)} images without a place in the patient are pictures of one case"]
    case.notices += [*notices, *sizes[:3], *found.notices]
    if len(sizes) > 3:
        case.notices.append(f"the pictures have {len(sizes)} different pixel sizes")
    return case


def _name(path: Path) -> str:
    """Return the name of a picture without a DICOM suffix; file names that are UIDs contain dots too."""
    return (path.with_suffix("") if path.suffix.lower() in DICOM_SUFFIXES else path).as_posix()


def decode_picture(path: Path) -> Picture:
    """Read one image for display, with MONOCHROME1 values inverted.

    Raises:
        CaseError: it is damaged.
    """
    with quiet():
        image = read_image_file(path)
        if image is None:
            msg = f"{path}: it holds no image any more. Put the image back."
            raise CaseError(msg)
        slice_ = image.slices[0]
        stored, slope, intercept = read_pixels([slice_])
    pixels = stored[:, :, 0].swapaxes(0, 1)
    if is_inverted(slice_):
        pixels = as_seen(slice_, pixels)
    if (slope, intercept) != (1.0, 0.0):
        pixels = (pixels * np.float64(slope) + np.float64(intercept)).astype(np.float32)
    size = numbers(slice_.facts, "PixelSpacing", 2)
    spacing = None if size is None or float(size.min()) <= 0 else (float(size[0]), float(size[1]))
    return Picture(pixels, Orientation(), spacing=spacing)
