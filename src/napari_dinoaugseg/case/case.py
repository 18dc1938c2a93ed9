"""The interface of every case: numbered 2-D images, their labels, and writing masks in their geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.geometry import Plane
from napari_dinoaugseg.errors import LabelError, naming_slices


@dataclass(frozen=True)
class Segment:
    """One class of a mask.

    Attributes:
        number: its value in the mask, 1 to 65535.
        name: for display.
        colour: ``#rrggbb``; None leaves it to the viewer.
        by_hand: whether all of it was drawn manually.
    """

    number: int
    name: str
    colour: str | None = None
    by_hand: bool = False


def described(numbers: list[int], segments: tuple[Segment, ...]) -> list[Segment]:
    """Return a segment for each number in `numbers` or `segments`, in order; unnamed ones are called `class N`."""
    known = {segment.number: segment for segment in segments}
    return [known.get(number) or Segment(number, f"class {number}") for number in sorted({*numbers, *known} - {0})]


UNKNOWN = 65535
"""Value of an unlabelled pixel, which training ignores."""

# Returns the (H, W) label image of slice i in display orientation.
MaskOf = Callable[[int], NDArray[np.integer[Any]]]
# Returns the (H, W) confidence of slice i, from 0 to 1, in display orientation.
ConfidenceOf = Callable[[int], NDArray[np.float32]]


class ReadLabels(dict[int, NDArray[np.uint16]]):
    """Label images (H, W) by slice number, with notices and label names.

    Attributes:
        notices: sentences for the user.
        segments: name and colour of the labels, where the files have them.
        may_be_unknown: whether `UNKNOWN` marks unlabelled pixels; otherwise it is an ordinary label.
    """

    def __init__(
        self,
        labels: Mapping[int, NDArray[np.uint16]],
        *,
        notices: Sequence[str] = (),
        segments: Sequence[Segment] = (),
        may_be_unknown: bool = False,
    ) -> None:
        super().__init__(labels)
        self.notices = list(notices)
        self.segments = tuple(segments)
        self.may_be_unknown = may_be_unknown


class Slices(ABC):
    """A numbered series of 2-D images: the part of a case that training uses.

    Attributes:
        kind: "volume" or "pictures".
        n_slices: how many slices or pictures there are.
        is_colour: whether slices are (H, W, 3).
        modality: "CT", "MR"... if the file gives it.
    """

    kind: Literal["volume", "pictures"]
    n_slices: int
    is_colour: bool
    modality: str | None

    @abstractmethod
    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` as (H, W) or (H, W, 3) in the values of the file (HU for CT), uint8 or float32."""

    @abstractmethod
    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width of slice `i` in pixels, without decoding it."""

    @abstractmethod
    def slice_fingerprint(self, i: int) -> str:
        """Return a hash (hex) of the pixels of slice `i` and its position in the volume: a cache key."""

    @property
    @abstractmethod
    def is_byte(self) -> bool:
        """Whether every slice is stored as 8-bit values without scaling."""

    @abstractmethod
    def intensity_range(self) -> tuple[float, float]:
        """Return the 0.5th and 99.5th percentile over the whole case, in the values of `slice`."""

    @property
    def parts(self) -> Sequence[tuple[range, Slices]]:
        """The cases in it, each with its slice numbers here: only itself, unless several cases were joined."""
        return [(range(self.n_slices), self)]

    @property
    def sequences(self) -> Mapping[str, Slices]:
        """Its sequences (T1, T2…) by name, in order, each on the same slices; the slices here are those of the first.

        A sequence has the fingerprints that it has alone, so that features are shared. A case of one is its only
        sequence, without a name.
        """
        return {"": self}

    def measured(self, what: str, measure: Callable[[], float]) -> float:
        """Return a measurement of the pixels; a case that is described on disk remembers it.

        Args:
            what: its name, with all that it depends on besides the pixels.
            measure: makes it.
        """
        return measure()

    def neighbours(self, i: int, distance: int = 1) -> tuple[int, int]:
        """Return the numbers of the slices `distance` before and after slice `i`, clipped to the volume.

        Pictures have no neighbours: both numbers are `i`.
        """
        if self.kind != "volume":
            return i, i
        return max(i - distance, 0), min(i + distance, self.n_slices - 1)


class Case(Slices):
    """Slices of one volume, or pictures, with readers and writers of masks in exactly their geometry.

    Attributes:
        name: the stem of the file or folder, for messages and reports; never the full path.
        path: the file or folder.
        plane: the direction of the slices; native for pictures.
        notices: sentences for the user.
        lacking: a sentence on what its mask will lack; "" for nothing.
        slice_distance: mm between neighbouring slices; None for pictures and where unknown.
    """

    name: str
    path: Path
    plane: Plane
    notices: list[str]
    lacking: str = ""
    slice_distance: float | None

    @abstractmethod
    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Return the size of a pixel of slice `i` as (row, column) distance in mm; None when it is unknown."""

    @abstractmethod
    def slice_name(self, i: int) -> str:
        """Return the name of slice `i` for messages: "slice 12", or the file name of a picture."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash (hex) of the pixels of the whole case, independent of its name and plane."""

    @abstractmethod
    def write_mask(self, path: Path, masks: MaskOf) -> None:
        """Write a label image for every slice in exactly the geometry of the input, atomically."""

    @abstractmethod
    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Write the confidence of the labels, in the geometry of `write_mask`."""

    @abstractmethod
    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` when `write_mask(path)` could not succeed or would overwrite an input.

        Args:
            path: the output path of the mask.
            inputs: further files and folders that must not be overwritten (labels, a model).
        """

    def check_confidence_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Raise `OutputError` when `write_confidence(path)` could not succeed or would overwrite an input."""
        self.check_output(path, inputs)

    @abstractmethod
    def read_labels(self, path: Path, slices: Sequence[int] | None = None) -> dict[int, NDArray[np.uint16]]:
        """Read painted labels.

        Args:
            path: a label file on the same voxel grid, or for pictures a folder with masks of some of them.
            slices: the labelled slices, including all-background ones; None = every slice that has labels.

        Returns:
            The (H, W) label image of each labelled slice, in display orientation, by slice number; a `ReadLabels`
            with notices, label names or `UNKNOWN` pixels.

        Raises:
            LabelError: the labels do not fit the case, or hold invalid values.
        """

    def patient_position(self, i: int, row: float, column: float) -> tuple[float, float, float] | None:
        """Return where a place on slice `i` lies in the patient: mm to the right, to the front, to the head (RAS).

        Args:
            i: the slice.
            row: in pixels; the centre of the first one is 0.
            column: likewise.

        Returns:
            None where the file does not give the position or the orientation.
        """
        return None

    @property
    def sequences(self) -> Mapping[str, Case]:
        """Its sequences by name, see `Slices.sequences`."""
        return {"": self}

    def slice_parts(self, i: int) -> tuple[str | int, ...]:
        """Return :meth:`slice_name` as parts of a message that names slices, see `errors.naming_slices`."""
        return ("slice ", i) if self.kind == "volume" else (self.slice_name(i),)

    def require_slices(self, slices: Sequence[int]) -> list[int]:
        """Return the slice numbers sorted and without duplicates.

        Raises:
            LabelError: the list is empty, or a number is out of range.
        """
        slices = [int(i) for i in slices]
        wrong = [i for i in slices if not 0 <= i < self.n_slices]
        if wrong:
            noun = "slice" if self.kind == "volume" else "picture"
            named = (f"{self.name}: {noun} ", wrong[0], " does not exist; they are numbered from ")
            raise LabelError(naming_slices(*named, 0, " to ", self.n_slices - 1, ". Check the numbers."))
        if not slices:
            msg = f"{self.name}: no slice is named. Name at least one labelled slice."
            raise LabelError(msg)
        return sorted(set(slices))
