"""A case that is described on disk: its file is opened only when its pixels are needed.

A project of many cases trains on cached features and saved labels. With the description of each case neither needs the
pixels again, and the pixels of one case at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case.case import Case, ConfidenceOf, MaskOf
from napari_dinoaugseg.case.geometry import Plane
from napari_dinoaugseg.errors import CaseError


@dataclass
class CaseRecord:
    """What is known of a case without its file, as plain JSON values.

    Attributes:
        fingerprint: of its pixels.
        kind: "volume" or "pictures".
        plane: of the slices.
        n_slices: how many there are.
        is_colour: whether slices are (H, W, 3).
        is_byte: whether every slice is stored as 8-bit values.
        modality: "CT", "MR"… if the file gives it.
        shapes: height and width of each slice; one entry if all are equal.
        spacings: (row, column) mm of each slice, or None; one entry if all are equal.
        slice_distance: mm between slices, or None.
        names: of pictures; empty for a volume.
        slices: the hashes of slices that were read, by number.
        measured: measurements of the pixels, by name.
        sequences: of several sequences, a record of each by its name, in order; empty for a case of one.
    """

    fingerprint: str
    kind: Literal["volume", "pictures"]
    plane: str
    n_slices: int
    is_colour: bool
    is_byte: bool
    modality: str | None
    shapes: list[tuple[int, int]]
    spacings: list[tuple[float, float] | None]
    slice_distance: float | None
    names: list[str] = field(default_factory=list)
    slices: dict[int, str] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    sequences: dict[str, CaseRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case) -> CaseRecord:
        """Describe an open case. Reads every pixel for the fingerprint."""
        numbers = range(case.n_slices)
        several = case.sequences.items() if len(case.sequences) > 1 else ()
        return cls(
            fingerprint=case.fingerprint,
            kind=case.kind,
            plane=case.plane.value,
            n_slices=case.n_slices,
            is_colour=case.is_colour,
            is_byte=case.is_byte,
            modality=case.modality,
            shapes=_once([case.slice_shape(i) for i in numbers]),
            spacings=_once([case.slice_spacing(i) for i in numbers]),
            slice_distance=case.slice_distance,
            names=[case.slice_name(i) for i in numbers] if case.kind == "pictures" else [],
            sequences={name: cls.of(sequence) for name, sequence in several},
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> CaseRecord:
        """Read what :meth:`to_plain` wrote. Raises KeyError, TypeError, ValueError if it is damaged."""
        record = cls(
            fingerprint=str(values["fingerprint"]),
            kind="pictures" if values["kind"] == "pictures" else "volume",
            plane=Plane(values["plane"]).value,
            n_slices=int(values["n_slices"]),
            is_colour=bool(values["is_colour"]),
            is_byte=bool(values["is_byte"]),
            modality=None if values["modality"] is None else str(values["modality"]),
            shapes=[(int(height), int(width)) for height, width in values["shapes"]],
            spacings=[None if pair is None else (float(pair[0]), float(pair[1])) for pair in values["spacings"]],
            slice_distance=None if values["slice_distance"] is None else float(values["slice_distance"]),
            names=[str(name) for name in values["names"]],
            slices={int(number): str(value) for number, value in values["slices"].items()},
            measured={str(name): float(value) for name, value in values["measured"].items()},
            sequences={str(name): cls.from_plain(one) for name, one in values.get("sequences", {}).items()},
        )
        if record.n_slices < 1 or {len(record.shapes), len(record.spacings)} - {1, record.n_slices}:
            msg = "its slices do not match their number"
            raise ValueError(msg)
        return record

    def to_plain(self) -> dict[str, Any]:
        """The same as JSON values."""
        plain = {**vars(self), "slices": {str(number): value for number, value in self.slices.items()}}
        if self.sequences:
            return {**plain, "sequences": {name: record.to_plain() for name, record in self.sequences.items()}}
        del plain["sequences"]  # as in the files of earlier versions
        return plain


class RecordedCase(Case):
    """A case by its record; `opened` gives its pixels.

    Attributes:
        record: it grows by what is measured here.

    Args:
        record: of the case.
        name: for messages.
        path: of its file or folder.
        opened: opens the case, or returns it if it is still open.
    """

    def __init__(self, record: CaseRecord, name: str, path: Path, opened: Callable[[], Case]) -> None:
        self.record, self.name, self.path = record, name, path
        self.opened = opened
        self.kind, self.n_slices, self.is_colour = record.kind, record.n_slices, record.is_colour
        self.modality, self.slice_distance = record.modality, record.slice_distance
        self.plane = Plane(record.plane)
        self.notices = []

    @property
    def sequences(self) -> Mapping[str, Case]:
        """Its sequences by their own records, where what is measured is remembered as well; see `Slices.sequences`."""
        if not self.record.sequences:
            return {"": self}
        return {name: self._sequence(name, record) for name, record in self.record.sequences.items()}

    def _sequence(self, name: str, record: CaseRecord) -> RecordedCase:
        return RecordedCase(record, self.name, self.path, lambda: self.opened().sequences[name])

    @property
    def fingerprint(self) -> str:
        """The hash of its pixels, by the record."""
        return self.record.fingerprint

    @property
    def is_byte(self) -> bool:
        """Whether every slice is stored as 8-bit values."""
        return self.record.is_byte

    def slice(self, i: int) -> NDArray[Any]:
        """Return slice `i` from the file."""
        return self.opened().slice(i)

    def slice_shape(self, i: int) -> tuple[int, int]:
        """Return height and width."""
        return self.record.shapes[i if len(self.record.shapes) > 1 else 0]

    def slice_spacing(self, i: int) -> tuple[float, float] | None:
        """Return (row, column) distance in mm."""
        return self.record.spacings[i if len(self.record.spacings) > 1 else 0]

    def slice_name(self, i: int) -> str:
        """Return "slice 12", or the file name of a picture."""
        return self.record.names[i] if self.record.names else f"slice {i}"

    def slice_fingerprint(self, i: int) -> str:
        """Return the hash of slice `i`, read from the file once."""
        if i not in self.record.slices:
            self.record.slices[i] = self.opened().slice_fingerprint(i)
        return self.record.slices[i]

    def intensity_range(self) -> tuple[float, float]:
        """Return the percentiles of the whole case, read from the file once."""
        low = self.measured("lowest", lambda: self.opened().intensity_range()[0])
        return low, self.measured("highest", lambda: self.opened().intensity_range()[1])

    def measured(self, what: str, measure: Callable[[], float]) -> float:
        """Return a measurement of the pixels, made once."""
        if what not in self.record.measured:
            self.record.measured[what] = measure()
        return self.record.measured[what]

    def write_mask(self, path: Path, masks: MaskOf) -> None:
        """Write a mask as the opened case does."""
        self.opened().write_mask(path, masks)

    def write_confidence(self, path: Path, maps: ConfidenceOf) -> None:
        """Write a confidence as the opened case does."""
        self.opened().write_confidence(path, maps)

    def check_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Check as the opened case does."""
        self.opened().check_output(path, inputs)

    def check_confidence_output(self, path: Path, inputs: Sequence[Path] = ()) -> None:
        """Check as the opened case does."""
        self.opened().check_confidence_output(path, inputs)

    def read_labels(self, path: Path, slices: Sequence[int] | None = None) -> dict[int, NDArray[np.uint16]]:
        """Read labels as the opened case does."""
        return self.opened().read_labels(path, slices)


def require_same(case: Case, record: CaseRecord, path: Path) -> None:
    """Raise CaseError unless an opened case has the pixels and slices of a record."""
    if (case.fingerprint, case.plane.value, case.n_slices) != (record.fingerprint, record.plane, record.n_slices):
        msg = (
            f"{path}: these are not the pixels that were labelled: the file was changed or replaced. Put the original "
            "file back, or add this one as a new case."
        )
        raise CaseError(msg)


def _once(values: list[Any]) -> list[Any]:
    return values[:1] if len(set(values)) == 1 else values
