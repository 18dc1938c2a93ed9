"""The errors that a person can meet.

Each message is one or two lines: what is wrong, in which file, and what to do next. The command line prints the message
and exits with code 1; the panel shows it. Anything that is not one of these is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DinoAugSegError(Exception):
    """Base of every error that is meant for the person at the screen."""


class CaseError(DinoAugSegError):
    """An image cannot be opened: missing, damaged, not what its name says, or not one case."""


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a DICOM folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: as the scanner's operator wrote it; may be empty.
        slices: how many files it has.
        spacing: (between slices, between rows, between columns) in mm, as the first file says; None = not said.
    """

    uid: str
    description: str
    slices: int
    spacing: tuple[float | None, float | None, float | None]


class SeveralSeriesError(CaseError):
    """A folder holds several DICOM series, and one has to be chosen.

    Attributes:
        series: what there is to choose from.
    """

    def __init__(self, message: str, series: Sequence[SeriesInfo] = ()) -> None:
        super().__init__(message)
        self.series = list(series)


class SeveralVolumesError(CaseError):
    """A file holds several volumes (time points, channels), and one has to be chosen.

    Attributes:
        count: they are numbered from 0 to ``count`` - 1.
    """

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message)
        self.count = count


class LabelError(DinoAugSegError):
    """Labels do not fit the case, or are not labels."""


class WeightsError(DinoAugSegError):
    """Encoder weights are missing, damaged, or belong to another encoder."""


class CheckpointError(DinoAugSegError):
    """A saved model cannot be read or does not fit."""


class OutputError(DinoAugSegError):
    """A result cannot be written there."""


class DeviceError(DinoAugSegError):
    """The asked-for compute device is not there."""


class SettingsError(DinoAugSegError):
    """A setting is out of its range or contradicts another."""


class TrainingError(DinoAugSegError):
    """There is nothing to learn from, or learning cannot go on."""


class SessionError(DinoAugSegError):
    """A saved session cannot be used: of a newer version, of another case, open in another window, or damaged."""


class ClusterError(DinoAugSegError):
    """A scheduler or its workers cannot be had, or are lost."""


class LostSchedulerError(ClusterError):
    """A scheduler answered before, and does not any more; or its worker ended in the middle of the work."""


def one_line(text: str) -> str:
    """A message in one line, for a table or inside another message."""
    return " ".join(text.split())
