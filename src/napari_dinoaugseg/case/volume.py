"""A volume as a case: sliced along a plane, displayed upright, written back in stored order."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Case, ConfidenceOf, MaskOf, ReadLabels, Segment
from napari_dinoaugseg.case.dicom.frames import DicomSource
from napari_dinoaugseg.case.dicom.seg import is_seg
from napari_dinoaugseg.case.files import TIFF_SUFFIXES, check_not_input, check_parent, name_of, suffix_of
from napari_dinoaugseg.case.geometry import Grid, Layout, Plane, Voxels, finest_plane, place_by
from napari_dinoaugseg.case.intensity import robust_range
from napari_dinoaugseg.case.labels import LabelVolume, read_dicom_on, read_label_volume
from napari_dinoaugseg.case.sequences import onto_grid, placed_fingerprint
from napari_dinoaugseg.case.writing import (
    RTSTRUCT_SUFFIX,
    is_dicom_output,
    no_affine,
    no_dicom,
    output_suffixes,
    save_anonymous,
    save_volume,
)
from napari_dinoaugseg.errors import CaseError, LabelError, OutputError

# Percentiles are taken from a regular sub-grid of about this many voxels.
_SAMPLE = 2_000_000


class VolumeCase(Case):
    """Slices of one volume.

    Voxels stay in their stored type; a slice is scaled on access.

    Args:
        voxels: the volume from the reader of the format.
        plane: the direction of the slices; None takes the plane with the smallest pixels.
    """

    kind: Literal["volume", "pictures"] = "volume"
    _sequences: Mapping[str, VolumeCase] = MappingProxyType({})  # of several, each alone on the grid of the first
    _identity = ""  # in place of a hash of the voxels, where these were resampled

    def __init__(self, voxels: Voxels, plane: Plane | None = None) -> None:
        self._voxels = voxels
        self.path = voxels.path
        self.name = name_of(voxels.path)
        self.notices = list(voxels.notices)
        self.is_colour = voxels.is_colour
        self.modality = voxels.modality
        if plane is None:
            plane = finest_plane(voxels.grid) if voxels.grid.known else Plane.NATIVE
        if voxels.grid.in_time and plane not in (Plane.NATIVE, finest_plane(voxels.grid)):
            msg = f"{self.name}: its slices are frames, with no distance between them: no {plane} plane cuts them."
            raise CaseError(msg)
        self.plane = plane
        self._display_layout = Layout.native() if plane is Plane.NATIVE else Layout.display(voxels.grid)
        self._layout = self._display_layout.sliced(plane)
        self._slices = self._layout.apply(voxels.stored)
        self.n_slices = int(self._slices.shape[0])
        spacing = self._layout.permuted(self.grid.spacing)
        # Lengths in mm exist only along axes with known and even steps.
        measured = [self.grid.has_size and (axis != 2 or self.grid.offsets is None) for axis in self._layout.axes]
        self._pixel = (spacing[1], spacing[2]) if measured[1] and measured[2] else None
        self.slice_distance = spacing[0] if measured[0] else None

    @property
    def grid(self) -> Grid:
        """Where the voxels lie, in stored order."""
        return self._voxels.grid

    @property
    def is_byte(self) -> bool:
        """Whether the voxels are stored as unscaled 8-bit numbers."""
        return bool(self._voxels.stored.dtype == np.uint8) and not self._voxels.is_scaled

    @cached_property
    def display(self) -> NDArray[Any]:
        """The whole volume for display: (z, y, x) in LPS, or (k, j, i) for plane=native; colour adds an axis.

        A view of the stored voxels where they are unscaled, else one float32 copy.
        """
        stored = self._voxels.stored
        if self._voxels.is_scaled:
            scaled = np.empty(stored.shape, dtype=np.float32, order="F")
            for k in range(stored.shape[2]):
                scaled[:, :, k] = self._voxels.values(stored[:, :, k])
            stored = scaled
        elif not stored.dtype.isnative:
            stored = stored.astype(stored.dtype.newbyteorder("="), order="K")
        return self._display_layout.apply(stored)

    @property
    def display_scale(self) -> tuple[float, float, float]:
        """Voxel size of `display` in mm along (z, y, x): 1 where unknown, the mean of uneven steps."""
        if not self.grid.has_size:
            return 1.0, 1.0, 1.0
        return self._display_layout.permuted(self.grid.spacing)

    def shows_alike(self, plane: Plane) -> bool:
        """Return whether `display` is the same array for another plane.

        All planes except `native` show the volume upright in one order of axes; `native` shows it as stored.
        """
        if (self.plane is Plane.NATIVE) == (plane is Plane.NATIVE):
            return True
        return Layout.display(self.grid) == Layout.native()

    def in_plane(self, plane: Plane) -> VolumeCase:
        """Return a case of the same voxels, sliced along another plane."""
        cut = copy.copy(self)
        if not self.shows_alike(plane):
            vars(cut).pop("display", None)  # cached for the other order of axes
        VolumeCase.__init__(cut, self._voxels, plane)
        cut.name = self.name  # a case from a layer keeps the name of the layer
        if self._sequences:
            cut._sequences = {name: sequence.in_plane(plane) for name, sequence in self._sequences.items()}
            cut.notices = list(self.notices)
        return cut

    @property
    def sequences(self) -> Mapping[str, VolumeCase]:
        """Its sequences by name, see `Slices.sequences`; those with another grid are resampled to that of the first."""
        return self._sequences or {"": self}

    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` as (H, W) or (H, W, 3), uint8 or float32, in the values of the file."""
        # A copy, so that writing to a slice does not change the case.
        return np.array(self._voxels.values(self._slices[self._index(i)]), order="C")

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width in pixels, which all slices of a volume share."""
        self._index(i)
        return int(self._slices.shape[1]), int(self._slices.shape[2])

    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Return (row, column) distance in mm."""
        self._index(i)
        return self._pixel

    def patient_position(self, i: int, row: float, column: float) -> tuple[float, float, float] | None:
        """Return where a place on slice `i` lies in the patient, as :meth:`Case.patient_position`."""
        self._index(i)
        grid = self.grid
        if not (grid.known and grid.oriented):
            return None
        index = np.zeros(3)
        for axis, flip, at in zip(self._layout.axes, self._layout.flips, (i, row, column), strict=True):
            index[axis] = grid.shape[axis] - 1 - at if flip else at
        if grid.offsets is not None:
            step = np.linalg.norm(grid.affine[:3, 2])
            index[2] = np.interp(index[2], np.arange(len(grid.offsets)), grid.offsets) / step
        x, y, z = (float(value) for value in (grid.affine @ [*index, 1.0])[:3])
        return x, y, z

    def slice_name(self, i: int) -> str:
        """Return "slice 12"."""
        return f"slice {self._index(i)}"

    def slice_fingerprint(self, i: int) -> str:
        """Return a hash of the values of slice `i` in all sequences, its plane and its number."""
        if self._sequences:
            return _joint_hash(sequence.slice_fingerprint(i) for sequence in self._sequences.values())
        digest = hashlib.blake2b(digest_size=16)
        pixels = self.slice(i)
        digest.update(f"{self.plane} {i} {pixels.shape} {pixels.dtype}".encode())
        digest.update(pixels.data)
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the stored voxels, their scaling and the axis directions, independent of name and plane.

        The directions are included because labels are kept in display order. That of several sequences is another one
        than that of the first alone.
        """
        if self._identity:
            return self._identity
        if self._sequences:
            return _joint_hash(sequence.fingerprint for sequence in self._sequences.values())
        voxels, digest = self._voxels, hashlib.blake2b(digest_size=16)
        stored = voxels.stored
        kind = stored.dtype.newbyteorder("<").str
        digest.update(f"{stored.shape} {kind} {voxels.slope!r} {voxels.intercept!r} {self.grid.axcodes}".encode())
        for k in range(stored.shape[2]):
            digest.update(np.ascontiguousarray(stored[:, :, k], dtype=stored.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    @cached_property
    def _range(self) -> tuple[float, float]:
        if self.is_colour:
            return 0.0, 255.0
        stored = self._voxels.stored
        step = max(1, round((stored.size / _SAMPLE) ** (1 / 3)))
        low, high = robust_range(self._voxels.values(stored[::step, ::step, ::step]))
        return (low, high) if low < high else robust_range(self._voxels.values(stored))

    def intensity_range(self) -> tuple[float, float]:
        """Return the 0.5th and 99.5th percentile of the volume, from a regular sample of its voxels."""
        return self._range

    def _index(self, i: int) -> int:
        if not 0 <= i < self.n_slices:
            msg = f"slice {i} of {self.n_slices}"
            raise IndexError(msg)
        return i

    def to_slices(self, native: NDArray[Any]) -> NDArray[Any]:
        """Return a view (n_slices, H, W) of an array in stored order (i, j, k)."""
        return self._layout.apply(native)

    def restore(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return a view in stored order (i, j, k) of slices (n_slices, H, W): the exact inverse of `to_slices`."""
        return self._layout.invert(slices)

    def write_mask(self, path: Path, masks: MaskOf, segments: Sequence[Segment] = ()) -> None:
        """Write one label file on the case's grid, in the smallest unsigned type that holds its values.

        Args:
            path: one of `mask_suffixes`: .nii, .nii.gz or .nrrd; .tif too for a TIFF stack, .dcm (DICOM SEG) and
                .rtstruct.dcm for a DICOM series; only these two and .tif where slices are not evenly spaced.
            masks: gives the labels (H, W) of slice i, from 0 to 65535.
            segments: names and colours of the labels, for DICOM SEG, RTSTRUCT and `.seg.nrrd`; others are called
                `class N`.

        Raises:
            OutputError: the system refused to write, or DICOM SEG or RTSTRUCT cannot hold this; no file is left.
        """
        save_volume(Path(path), self._native_mask(masks), self._voxels, segments)

    def _native_mask(self, masks: MaskOf) -> NDArray[Any]:
        """Return the labels of all slices in stored order, in the smallest unsigned type that holds them."""
        native: NDArray[Any] = np.zeros(self.grid.shape, dtype=np.uint8, order="F")
        for i in range(self.n_slices):
            mask = np.asarray(masks(i))
            if mask.size and int(mask.max()) > 255 and native.dtype == np.uint8:
                native = native.astype(np.uint16, order="F")
            self._put(native, i, mask)
        return native

    @property
    def itk_refuses(self) -> bool:
        """Whether ITK cannot read the image, nor a mask on its grid: the axes are not at right angles."""
        return self._voxels.itk_refuses

    def write_anonymous(self, images: Sequence[Path], mask: Path | None = None, masks: MaskOf | None = None) -> None:
        """Write image and mask as NIfTI files on the case's grid, without a text that could name the patient.

        Image and mask have the same shape, affine and spacing as ITK sees the case. The image holds the values of the
        file (HU for CT) without loss. Frames in time (2D+t) become the slices of a volume.

        Args:
            images: one file, or three for red, green and blue if the case is in colour.
            mask: the file of the labels; None = only the image.
            masks: gives the labels (H, W) of slice i, from 0 to 65535.

        Raises:
            OutputError: the slices are not evenly spaced, or the system refused to write.
        """
        values = self._voxels.exact()
        for channel, path in enumerate(images):
            save_anonymous(path, values[..., channel] if self.is_colour else values, self._voxels)
        if mask is not None and masks is not None:
            save_anonymous(mask, self._native_mask(masks), self._voxels)

    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Write one float32 file from 0 to 1 on the case's grid; DICOM SEG stores steps of 1/255.

        Args:
            path: as for `write_mask`, but not an RTSTRUCT.
            maps: gives the confidence (H, W) of slice i.

        Raises:
            OutputError: the system refused to write; no file is left.
        """
        native = np.zeros(self.grid.shape, dtype=np.float32, order="F")
        for i in range(self.n_slices):
            self._put(native, i, np.asarray(maps(i)))
        save_volume(Path(path), native, self._voxels)

    @property
    def mask_suffixes(self) -> tuple[str, ...]:
        """The allowed suffixes of a mask, the preferred one first."""
        return output_suffixes(self._voxels)

    def _put(self, native: NDArray[Any], i: int, image: NDArray[Any]) -> None:
        if image.shape != self.slice_shape(i):
            msg = f"slice {i} is {self.slice_shape(i)}, not {image.shape}"
            raise ValueError(msg)
        self._layout.apply(native)[i] = image

    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` when a mask could not be written to `path` or would overwrite an input."""
        path = Path(path)
        if path.is_dir():
            msg = f"{path}: this is a folder, but the mask of a volume is one file. Name a file such as mask.nii.gz."
            raise OutputError(msg)
        if suffix_of(path) not in self.mask_suffixes:
            if is_dicom_output(path):
                raise OutputError(no_dicom(path, self._voxels))
            if self.grid.is_uneven:
                raise OutputError(no_affine(path, self._voxels))
            msg = f"{path}: the mask of this case must end in {', '.join(self.mask_suffixes)}. Change the suffix."
            raise OutputError(msg)
        read = [file for sequence in self.sequences.values() for file in sequence._voxels.files]
        check_not_input(path, [*read, *inputs])
        check_parent(path)

    def check_confidence_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` as `check_output` does, and for contours, which hold no confidence."""
        if suffix_of(Path(path)) == RTSTRUCT_SUFFIX:
            msg = f"{path}: contours (RTSTRUCT) hold no confidence. Write {self.mask_suffixes[0]} instead."
            raise OutputError(msg)
        self.check_output(path, inputs)

    def read_labels(self, path: Path, slices: Sequence[int] | None = None) -> ReadLabels:
        """Read a label file of the same voxel grid.

        Args:
            path: NIfTI, NRRD, DICOM SEG or RTSTRUCT (a TIFF stack for a TIFF stack, and for unevenly spaced slices).
                The stored order may differ by flips and permutation, and the file may cover a part of the grid. A DICOM
                SEG must refer to this series, an RTSTRUCT to its frame of reference.
            slices: the labelled slices, including all-background ones; None takes every slice with a label.

        Returns:
            The (H, W) label image by slice number in display orientation, with names, colours and notices.

        Raises:
            LabelError: another shape or affine, no labels, only background, or a slice number out of range.
        """
        path = Path(path)
        chosen = self.require_slices(slices) if slices is not None else None
        if path.is_dir():
            msg = f"{path}: this is a folder, but the labels of a volume are one file. Name the label file."
            raise LabelError(msg)
        unplaced = self._voxels.format == "tiff" or self.grid.offsets is not None
        if suffix_of(path) in TIFF_SUFFIXES and self.grid.known and not unplaced:
            msg = f"{path}: a TIFF file does not hold a position. Give the labels as NIfTI, NRRD or DICOM SEG."
            raise LabelError(msg)
        labels = self._native_labels(path)
        painted = self.to_slices(labels.mask)
        if chosen is None:
            chosen = [i for i in range(self.n_slices) if painted[i].any()]
            if not chosen:
                msg = f"{path}: every voxel is background, so there is nothing to learn. Paint a few slices first."
                raise LabelError(msg)
        return ReadLabels(
            {i: np.ascontiguousarray(painted[i], dtype=np.uint16) for i in chosen},
            notices=labels.notices,
            segments=labels.segments,
        )

    def _native_labels(self, path: Path) -> LabelVolume:
        """Return the labels of a file in the stored order of this case."""
        if is_seg(path):
            header = self._voxels.header
            return read_dicom_on(path, self.grid, header if isinstance(header, DicomSource) else None, self.name)
        labels = read_label_volume(path, self._voxels.of_series)
        try:
            placed, grid = place_by(labels.mask, labels.grids, self._voxels.grids)
        except LabelError as error:
            msg = f"{path}: these labels do not fit {self.name}: {error}. Give labels drawn on this image."
            raise LabelError(msg) from error
        notices = (*labels.notices, *([placed.notice] if placed.notice else []))
        return LabelVolume(placed.mask, [("geometry", grid)], labels.segments, notices)


def join_sequences(cases: Sequence[VolumeCase], names: Sequence[str], name: str = "") -> VolumeCase:
    """Return volumes of one patient as one case of several sequences.

    Args:
        cases: the first gives slices, grid, plane, modality and the form of the mask. One with another grid is
            resampled to that of the first, with a notice.
        names: of the sequences.
        name: of the case; empty = that of the first.

    Raises:
        CaseError: in colour, without a place in space where grids differ, or beside the first.
    """
    first = cases[0]
    placed = [first, *(_placed(case, first, (names[n], names[0])) for n, case in enumerate(cases[1:], 1))]
    joined = copy.copy(first)
    vars(joined).pop("fingerprint", None)
    joined._sequences = dict(zip(names, placed, strict=True))
    joined.name = name or first.name
    joined.notices = [notice for case in placed for notice in case.notices]
    return joined


def series_description(case: VolumeCase) -> str:
    """Return the description of the DICOM series of a volume; empty for other files, and where there is none."""
    return case._voxels.description


def _placed(case: VolumeCase, first: VolumeCase, names: tuple[str, str]) -> VolumeCase:
    """Return a volume on the grid of another one, sliced along the same plane."""
    voxels, is_resampled = onto_grid(case._voxels, first._voxels, names)
    placed = VolumeCase(voxels, first.plane)
    placed.name = case.name
    if is_resampled:
        placed._identity = placed_fingerprint(case.fingerprint, case.grid, first.grid)
    return placed


def _joint_hash(hashes: Iterable[str]) -> str:
    return hashlib.blake2b(" ".join(hashes).encode(), digest_size=16).hexdigest()
