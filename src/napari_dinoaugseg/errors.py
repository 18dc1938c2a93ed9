"""The errors and notices that a person can meet.

A message says what is wrong and in which file. Where the remedy is the same everywhere ("Export it again."), it gives
that too. Where command and panel offer different ways, the message carries a `Hint` instead, and each front end has the
sentence for it: `cli/words.py` names options, `gui/words.py` names buttons. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto


class Hint(StrEnum):
    """What a person can do, where command and panel do it differently; in braces the facts that the sentence needs."""

    # Opening a case
    CHOOSE_VOLUME = auto()  # {last}: number of the last volume
    CHOOSE_SERIES = auto()
    SPLIT_LAYER = auto()
    # Masks of pictures
    WHITE_AS_CLASS = auto()
    WHITE_AS_UNKNOWN = auto()
    RENUMBER_UNKNOWN = auto()
    OTHER_ORIENTATION = auto()  # {other}: "seen" or "stored"
    # Encoders and their weights
    CHOOSE_ENCODER = auto()  # {encoder}
    ENCODER_WITHOUT_FILE = auto()  # {encoder}
    GET_DINOV3 = auto()  # {encoder}, {megabytes}, {licence}, {url}
    NAME_WEIGHTS = auto()
    WEIGHTS_BY_HAND = auto()  # {file}, {source}, {install}
    DOWNLOADS_ARE_OFF = auto()  # {file}, {source}, {install}, {variable}
    # Models
    GIVE_MODEL = auto()
    MODEL_IS_NO_ENCODER = auto()
    SAME_WEIGHTS = auto()
    SESSION_FOLDER = auto()
    # Cohorts and workers
    ONE_CASE = auto()
    COHORT_OR_CASE = auto()
    REPLACE_MASKS = auto()
    FEWER_GPU_WORKERS = auto()  # {most}
    FEWER_WORKERS = auto()  # {most}
    ONE_CASE_A_WORKER = auto()
    CONTINUE_LATER = auto()
    WAIT_FOR_WORKER = auto()
    TRAIN_AGAIN = auto()


class Message(str):
    """A sentence for the person, with the hint at what to do about it, if there is one.

    Attributes:
        hint: the key of the remedy; None when the sentence gives it, or when none is needed.
        facts: what the remedy's sentence names, by the names in its braces.
    """

    hint: Hint | None
    facts: dict[str, object]

    def __new__(cls, text: str, hint: Hint | None = None, **facts: object) -> Message:
        """Attach a hint to a text; without one, keep that of a text that is a message already."""
        message = super().__new__(cls, text)
        if hint is None and isinstance(text, Message):
            hint, facts = text.hint, text.facts
        message.hint, message.facts = hint, facts
        return message

    def reworded(self, text: str) -> Message:
        """Return another text with the same hint."""
        return Message(text, self.hint, **self.facts)


def with_remedy(text: str, remedies: Mapping[Hint, str], between: str = " ") -> str:
    """Return a message followed by the sentence that a front end has for its hint; text without a hint as it is."""
    if not isinstance(text, Message) or text.hint is None:
        return str(text)
    start = text if text.endswith((".", "?", "!")) else f"{text}."
    return f"{start}{between}{remedies[text.hint].format(**text.facts)}"


class DinoAugSegError(Exception):
    """Base of every error that is meant for the person at the screen.

    Args:
        message: what is wrong, in which file.
        hint: what to do about it; None keeps the hint of a `Message`.
        facts: what the hint's sentence names.
    """

    def __init__(self, message: str, hint: Hint | None = None, **facts: object) -> None:
        self.message = Message(message, hint, **facts)
        super().__init__(self.message)

    @property
    def hint(self) -> Hint | None:
        """The key of the remedy that command and panel put into words."""
        return self.message.hint


class CaseError(DinoAugSegError):
    """An image cannot be opened: missing, damaged, not what its name says, or not one case."""


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a DICOM folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: as the scanner's operator wrote it; may be empty.
        slices: how many files it has.
        spacing: (between slices, between rows, between columns) in mm, from the first file; None = not given.
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
        super().__init__(message, Hint.CHOOSE_SERIES)
        self.series = list(series)


class SeveralVolumesError(CaseError):
    """A file holds several volumes (time points, channels), and one has to be chosen.

    Attributes:
        count: they are numbered from 0 to ``count`` - 1.
    """

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message, Hint.CHOOSE_VOLUME, last=count - 1)
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
    """The requested compute device is not available."""


class SettingsError(DinoAugSegError):
    """A setting is out of its range or contradicts another."""


class TrainingError(DinoAugSegError):
    """There is nothing to train on, or training cannot continue."""


class SessionError(DinoAugSegError):
    """A saved session cannot be used: of a newer version, of another case, open in another window, or damaged."""


class ClusterError(DinoAugSegError):
    """A scheduler or its workers cannot be reached, or are lost."""


class LostSchedulerError(ClusterError):
    """The connection to a scheduler is lost, or its worker ended in the middle of the work."""


def one_line(text: str) -> Message:
    """Return a message in one line, with its hint, for a table or inside another message."""
    return Message(text).reworded(" ".join(text.split()))
