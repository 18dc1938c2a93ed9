"""The errors and notices for the person.

A message says what is wrong and in which file. A remedy that is the same everywhere ("Export it again.") is part of it.
If command and panel differ, the message has a `Hint` instead, and each front end a sentence for it: `cli/words.py`
names options, `gui/words.py` names buttons. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from unicodedata import category


class Hint(StrEnum):
    """A remedy that differs between command and panel; in braces the facts that its sentence needs."""

    # Opening a case
    CHOOSE_VOLUME = auto()  # {last}: number of the last volume
    CHOOSE_SERIES = auto()
    CHOOSE_FRAMES = auto()
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
    SEQUENCES_OF_MODEL = auto()
    SESSION_FOLDER = auto()
    # Projects
    FIND_CASE = auto()  # {case}
    SEQUENCES_OF_PROJECT = auto()
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
    # PACS
    PACS_SIGN_IN = auto()
    PACS_CERTIFICATE = auto()
    PACS_WITHOUT_NETWORK = auto()  # {variable}
    PACS_WITHOUT_KEYRING = auto()  # {variable}
    PACS_SERIES = auto()


class Message(str):
    """A sentence for the person, with an optional hint.

    It may quote a stranger's file, of which no escape code must reach a terminal: control characters become question
    marks.

    Attributes:
        hint: the key of the remedy; None if the sentence contains it, or none is needed.
        facts: the values for the braces in the remedy's sentence.
        in_window: the text with slices counted from 1, as in the window; files and command count from 0. See
            :func:`naming_slices`.
    """

    hint: Hint | None
    facts: dict[str, object]
    in_window: str

    def __new__(cls, text: str, hint: Hint | None = None, **facts: object) -> Message:
        """Attach a hint to a text; without one, keep the hint of a message."""
        message = super().__new__(cls, _without_controls(text))
        if hint is None and isinstance(text, Message):
            hint, facts = text.hint, text.facts
        message.hint = hint
        message.facts = {
            name: _without_controls(fact) if isinstance(fact, str) else fact for name, fact in facts.items()
        }
        message.in_window = text.in_window if isinstance(text, Message) else str(message)
        return message

    def reworded(self, text: str, in_window: str | None = None) -> Message:
        """Return another text with the same hint; `in_window` where it names slices."""
        message = Message(text, self.hint, **self.facts)
        if in_window is not None:
            message.in_window = _without_controls(in_window)
        return message

    def after(self, words: str) -> Message:
        """Return this message behind other words, such as the name of a file."""
        return self.reworded(words + self, words + self.in_window)


def _without_controls(text: str) -> str:
    """The text with a question mark for each character that is neither printable, nor a space or the end of a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" or category(c) == "Zs" else "?" for c in text)


def naming_slices(*parts: str | int) -> Message:
    """A message in parts, of which the numbers are slices, counted from 0; the window counts them from 1."""
    shown = "".join(part if isinstance(part, str) else str(part + 1) for part in parts)
    return Message("".join(map(str, parts))).reworded("".join(map(str, parts)), shown)


def joined(messages: Sequence[str]) -> Message:
    """Messages in one line, without their hints."""
    each = [Message(message) for message in messages]
    return Message("").reworded(" ".join(each), " ".join(message.in_window for message in each))


def with_remedy(text: str, remedies: Mapping[Hint, str], between: str = " ") -> str:
    """Return a message followed by the front end's sentence for its hint; text without a hint unchanged."""
    if not isinstance(text, Message) or text.hint is None:
        return str(text)
    start = text if text.endswith((".", "?", "!")) else f"{text}."
    return f"{start}{between}{remedies[text.hint].format(**text.facts)}"


class DinoAugSegError(Exception):
    """Base of all errors that are shown to the person.

    Args:
        message: what is wrong, in which file.
        hint: the remedy; None keeps the hint of a `Message`.
        facts: the values for the hint's sentence.
    """

    def __init__(self, message: str, hint: Hint | None = None, **facts: object) -> None:
        self.message = Message(message, hint, **facts)
        super().__init__(self.message)

    @property
    def hint(self) -> Hint | None:
        """The key of the remedy that command and panel put into words."""
        return self.message.hint


class CaseError(DinoAugSegError):
    """An image cannot be opened: missing, damaged, of another format, or not one case."""


@dataclass(frozen=True)
class SeriesInfo:
    """One series of a DICOM folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: its SeriesDescription; may be empty.
        slices: number of files.
        spacing: (between slices, between rows, between columns) in mm, from the first file; None = unknown.
    """

    uid: str
    description: str
    slices: int
    spacing: tuple[float | None, float | None, float | None]


class SeveralSeriesError(CaseError):
    """A folder holds several DICOM series, and one must be chosen.

    Attributes:
        series: to choose from.
    """

    def __init__(self, message: str, series: Sequence[SeriesInfo] = ()) -> None:
        super().__init__(message, Hint.CHOOSE_SERIES)
        self.series = list(series)


class SeveralVolumesError(CaseError):
    """A file holds several volumes (time points, channels), and one must be chosen.

    Attributes:
        count: number of volumes, which are numbered from 0.
    """

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message, Hint.CHOOSE_VOLUME, last=count - 1)
        self.count = count


class LongVideoError(CaseError):
    """A video has so many frames that the person should choose how many of them to take.

    Attributes:
        count: number of frames.
    """

    def __init__(self, message: str, count: int = 0) -> None:
        super().__init__(message, Hint.CHOOSE_FRAMES)
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
    """Nothing to train on, or training cannot continue."""


class SessionError(DinoAugSegError):
    """A saved session cannot be used: of a newer version, of another case, open in another window, or damaged."""


class ProjectError(DinoAugSegError):
    """A project cannot be used: not a project, of a newer version, open elsewhere, or damaged."""


class ClusterError(DinoAugSegError):
    """A scheduler or its workers cannot be reached, or are lost."""


class LostSchedulerError(ClusterError):
    """The connection to a scheduler is lost, or its worker ended during the work."""


class PacsError(DinoAugSegError):
    """A PACS cannot be reached, refuses a request, or does not answer as DICOMweb."""


def one_line(text: str) -> Message:
    """Return a message in one line, with its hint, for a table or inside another message."""
    message = Message(text)
    return message.reworded(" ".join(message.split()), " ".join(message.in_window.split()))
