"""A case from an array in memory (an image layer of the viewer), and the sample case.

Such an array has at most a voxel size, but no position in the body. Its masks get a diagonal affine whose axes point to
the patient's left, back and head: ITK's default for missing directions, in which a mask is displayed like the array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import UNKNOWN, Case, ReadLabels
from napari_dinoaugseg.case.files import PICTURE_SUFFIXES, suffix_of, times
from napari_dinoaugseg.case.geometry import Grid, Plane, Voxels, check
from napari_dinoaugseg.case.masks import read_mask_folder
from napari_dinoaugseg.case.volume import VolumeCase
from napari_dinoaugseg.errors import CaseError, Hint, LabelError


class ArrayCase(VolumeCase):
    """Slices of an array (z, y, x), or the one slice of a picture (y, x).

    Masks go to a NIfTI or NRRD file; those of a picture to PNG too. `nibabel.load(path).get_fdata()[x, y, z]` is the
    label of voxel [z, y, x].
    """

    def __init__(self, voxels: Voxels, name: str, plane: Plane) -> None:
        super().__init__(voxels, plane)
        self.name = name
        missing = "no position" if voxels.grid.known else "neither voxel size nor position"
        if not self._is_picture:
            self.lacking = f"This image has {missing} in the body, and its mask will have none."
            self.notices.append(f"{self.lacking} For a mask that lies on the series, open its file or folder instead.")

    @property
    def _is_picture(self) -> bool:
        """Whether the array is 2-D."""
        return len(self._voxels.file_shape) == 2

    def patient_position(self, i: int, row: float, column: float) -> None:
        """Return None: an array lies in no patient."""
        return

    def read_labels(self, path: Path, slices: Sequence[int] | None = None) -> ReadLabels:
        """Read a label file, or for a picture a mask picture of the same size. See `VolumeCase.read_labels`."""
        path = Path(path)
        if not (self._is_picture and path.is_file() and suffix_of(path) in PICTURE_SUFFIXES):
            return super().read_labels(path, slices)
        masks = read_mask_folder(path)
        labels = masks[path.stem]
        if labels.shape != self.slice_shape(0):
            height, width = self.slice_shape(0)
            msg = (
                f"{path}: the mask is {labels.shape[1]} x {labels.shape[0]} pixels, but {self.name} is "
                f"{width} x {height}. Give a mask of the same size."
            )
            raise LabelError(msg)
        if slices is not None:
            self.require_slices(slices)
        elif not ((labels > 0) & (labels != UNKNOWN)).any():
            msg = f"{path}: every pixel is background, so there is nothing to learn. Paint something first."
            raise LabelError(msg)
        return ReadLabels({0: labels}, notices=masks.notices, may_be_unknown=masks.may_be_unknown)


def case_from_array(
    data: Any,
    *,
    spacing: Sequence[float] | None = None,
    name: str = "image",
    is_rgb: bool = False,
    plane: Plane | None = None,
) -> ArrayCase:
    """Make a case from an array.

    Args:
        data: an array-like of shape (y, x) or (z, y, x), with a last axis of 3 or 4 channels when `is_rgb`. It is not
            copied unless necessary, and never modified.
        spacing: pixel or voxel size in mm along (y, x) or (z, y, x); None when unknown.
        name: for messages and reports.
        is_rgb: whether the last axis is colour: 8-bit, 16-bit, or from 0 to 1.
        plane: direction of the slices, for an axial array; None = along its first axis.

    Returns:
        The case; its `display` is the array itself, (1, y, x) for a picture.

    Raises:
        CaseError: several resolutions, more or fewer axes, complex numbers, or no pixels.
    """
    if isinstance(data, Sequence):
        msg = (
            f"{name}: this image holds several resolutions (multiscale). "
            "Choose an image layer with one resolution, or open the file itself."
        )
        raise CaseError(msg)
    array = np.asarray(data)
    axes = array.ndim - int(is_rgb)
    if axes > 3:
        msg = (
            f"{name}: this image has {axes} axes ({times(array.shape[:axes])}), as a time series or several channels "
            "do."
        )
        raise CaseError(msg, Hint.SPLIT_LAYER)
    if axes < 2:
        msg = f"{name}: this image has {axes} axis; a picture has two and a volume three. Choose another layer."
        raise CaseError(msg)
    if array.size == 0:
        msg = f"{name}: this image has no pixels (its size is {times(array.shape)}). Choose another layer."
        raise CaseError(msg)
    pixels = _bytes(array, name) if is_rgb else array
    volume = pixels if axes == 3 else pixels[np.newaxis]
    colour = tuple(range(3, volume.ndim))
    stored = volume.transpose(2, 1, 0, *colour).view()
    stored.flags.writeable = False  # the pixels belong to the layer: `check` repairs a copy
    grid = _grid(stored, _millimetres(spacing, axes, name))
    file_shape = grid.shape if axes == 3 else grid.shape[:2]
    voxels = check(Voxels(path=Path(name), files=[], format="array", stored=stored, grid=grid, file_shape=file_shape))
    return ArrayCase(voxels, name, plane or Plane.NATIVE)


def _grid(stored: NDArray[Any], spacing: tuple[float, float, float] | None) -> Grid:
    z, y, x = spacing or (1.0, 1.0, 1.0)
    shape = (stored.shape[0], stored.shape[1], stored.shape[2])
    return Grid(shape, np.diag([-x, -y, z, 1.0]), known=spacing is not None)


def _millimetres(spacing: Sequence[float] | None, axes: int, name: str) -> tuple[float, float, float] | None:
    if spacing is None:
        return None
    sizes = [float(size) for size in spacing]
    if len(sizes) != axes or not all(np.isfinite(size) and size > 0 for size in sizes):
        msg = (
            f"{name}: {axes} positive voxel sizes are needed, not {times(spacing)}. "
            "Set the layer's scale to the voxel size in mm."
        )
        raise CaseError(msg)
    # The thickness of a picture is 1, as in files without one.
    return (1.0, sizes[0], sizes[1]) if axes == 2 else (sizes[0], sizes[1], sizes[2])


def _bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return colours as (..., 3) uint8, without opacity."""
    if array.shape[-1] not in (3, 4):
        msg = f"{name}: a colour image has 3 or 4 channels, not {array.shape[-1]}. Convert it to RGB or to grey."
        raise CaseError(msg)
    colours = array[..., :3]
    if colours.dtype == np.uint8:
        return np.asarray(colours, dtype=np.uint8)
    if colours.dtype == np.uint16:
        return np.asarray(colours >> 8, dtype=np.uint8)
    if colours.dtype.kind == "f":
        return np.asarray(np.rint(np.clip(np.nan_to_num(colours), 0, 1) * 255), dtype=np.uint8)
    msg = f"{name}: colours of type {colours.dtype} are not supported. Convert the image to 8-bit RGB or to grey."
    raise CaseError(msg)


# The sample: the T1 brain template of nilearn (ICBM 152, 2009) with its grey and white matter.
GREY_MATTER, WHITE_MATTER = 1, 2
CLASS_NAMES = {GREY_MATTER: "grey matter", WHITE_MATTER: "white matter"}
LABELLED_SLICES = (20, 46, 72, 98, 124)
"""Axial slices labelled in the demo, evenly spread over the 140 of the sample."""

SAMPLE = Path("brain template")
"""The path of the sample, which is not a file."""

# The cerebrum, with a margin of 8 voxels; below and above lie 49 slices with little or no brain.
_CROP = (slice(19, 179), slice(20, 216), slice(10, 150))
_ENDING = "_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class BrainSample:
    """The template at 1 mm, 160 x 196 x 140 voxels.

    Attributes:
        image: T1 contrast, uint8.
        tissue: uint8, 0 background, 1 grey matter, 2 white matter, each where its probability is at least 0.5.
    """

    image: nib.Nifti1Image
    tissue: nib.Nifti1Image


def brain_sample() -> BrainSample:
    """Load the sample from the installed nilearn, without a download.

    Raises:
        CaseError: nilearn is not installed.
    """
    found = find_spec("nilearn")
    if found is None or found.origin is None:
        msg = 'The sample case comes with nilearn, which is not installed. Run: pip install "napari-dinoaugseg[demo]"'
        raise CaseError(msg)
    folder = Path(found.origin).parent / "datasets" / "data"  # read here: to import nilearn takes seconds
    image, grey, white = (_template(folder / f"mni_icbm152_{kind}{_ENDING}") for kind in ("t1", "gm", "wm"))
    tissue = np.zeros(grey.shape, np.uint8)
    tissue[grey.get_fdata(dtype=np.float32) >= 0.5] = GREY_MATTER
    tissue[white.get_fdata(dtype=np.float32) >= 0.5] = WHITE_MATTER
    pixels = np.round(image.get_fdata(dtype=np.float32) * 255).astype(np.uint8)
    return BrainSample(_nifti(pixels, image), _nifti(tissue, image))


def _template(path: Path) -> nib.Nifti1Image:
    """The cerebrum of a map of nilearn, from 0 to 1 over the whole map."""
    try:
        whole = nib.load(path)
    except FileNotFoundError as error:
        msg = f'{path}: it is missing in the nilearn that is installed. Run: pip install "napari-dinoaugseg[demo]"'
        raise CaseError(msg) from error
    voxels = np.asarray(whole.dataobj).astype(np.float32)
    return nib.Nifti1Image(voxels / voxels.max(), whole.affine).slicer[_CROP]


def sample_case() -> VolumeCase:
    """Return the sample as a case of axial slices without a file on disk; masks have its affine.

    Raises:
        CaseError: nilearn is not installed.
    """
    image = brain_sample().image
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    voxels = Voxels(
        path=SAMPLE,
        files=[],
        format="nifti",
        stored=np.asarray(image.dataobj),
        grid=Grid(shape, np.asarray(image.affine, dtype=np.float64)),
        file_shape=shape,
        modality="MR",
        header=image.header,
    )
    return VolumeCase(voxels)


def is_sample(case: Case) -> bool:
    """Whether a case is the sample in axial slices, for which `sample_labels` has labels."""
    return case.path == SAMPLE and case.n_slices == _CROP[2].stop - _CROP[2].start and case.plane is Plane.AXIAL


def sample_labels(case: VolumeCase) -> dict[int, NDArray[np.uint16]]:
    """The true labels, (H, W) by slice, of LABELLED_SLICES of the sample in axial slices.

    Raises:
        CaseError: nilearn is not installed.
    """
    tissue = case.to_slices(np.asarray(brain_sample().tissue.dataobj))
    return {index: tissue[index].astype(np.uint16) for index in LABELLED_SLICES}


def _nifti(voxels: np.ndarray[Any, np.dtype[np.uint8]], like: nib.Nifti1Image) -> nib.Nifti1Image:
    result = nib.Nifti1Image(voxels, like.affine)
    result.header.set_xyzt_units("mm")
    return result
