"""The output of the command, results on standard output and the rest on standard error, and lists of numbers."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from napari_dinoaugseg.cli.words import error_text, notice_text
from napari_dinoaugseg.errors import DinoAugSegError, LabelError
from napari_dinoaugseg.learning.events import Notice, Stage
from napari_dinoaugseg.learning.events import Progress as ProgressEvent

# No case has more slices than six digits, and a typing error must not exhaust the memory.
_PART = re.compile(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*")


def parse_slices(text: str) -> list[int]:
    """Parse ``20,40,60`` or ``10-19,30`` to ascending numbers without repetition.

    Raises:
        LabelError: the text is not such a list.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            msg = f"'{text}' is not a list of slices. Write them as 20,40,60 or 10-19; the first slice is 0."
            raise LabelError(msg)
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def parse_counts(text: str, rounds: int) -> list[int]:
    """Parse ``1,2,2`` to one positive number per round; a single number applies to every round.

    Raises:
        LabelError: the text is not such a list, or does not have one number per round.
    """
    parts = [part.strip() for part in text.split(",")]
    if any(not part.isdecimal() or int(part) == 0 for part in parts) or len(parts) not in (1, rounds):
        msg = f"'{text}' is not one number of slices for each of {rounds} rounds. Write it as 1,2,2."
        raise LabelError(msg)
    counts = [int(part) for part in parts]
    return counts * rounds if len(counts) == 1 else counts


_VERBS: dict[Stage, str] = {
    "send": "sending",
    "encode": "encoding",
    "train": "training",
    "adapt": "adapting",
    "predict": "predicting",
    "live": "learning",
    "search": "searching",
    "fetch": "fetching",
    "store": "sending",
}
_UNITS: dict[Stage, tuple[str, str]] = {  # one and several
    "send": ("slice", "slices"),
    "encode": ("image", "images"),
    "train": ("step", "steps"),
    "adapt": ("step", "steps"),
    "predict": ("slice", "slices"),
    "live": ("step", "steps"),
    "search": ("study", "studies"),
    "fetch": ("image", "images"),
    "store": ("file", "files"),
}

Item = TypeVar("Item")
Result = TypeVar("Result")


def tell(text: str) -> None:
    """Print a message on standard error, with the remedy for its hint."""
    print(notice_text(text), file=sys.stderr, flush=True)  # noqa: T201 - the command's output


def note(notice: str, about: str = "") -> None:
    """Print a notice on standard error."""
    tell(f"Note: {about}{notice_text(notice)}")


def noting_once() -> Callable[[str], None]:
    """As :func:`note`, for work on many cases: what holds for each of them is printed at the first."""
    noted: set[str] = set()

    def note_new(notice: str) -> None:
        words = notice_text(notice).removeprefix("Note: ")
        if words not in noted:
            noted.add(words)
            note(words)

    return note_new


def tell_error(error: DinoAugSegError) -> None:
    """Print an error on standard error."""
    tell(f"Error: {error_text(error)}")


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object on standard output."""
    print(json.dumps(value, allow_nan=False))  # noqa: T201


def print_text(text: str) -> None:
    """Print a human-readable result on standard output."""
    print(text)  # noqa: T201


class _Line:
    """A live progress bar on standard error if that is a terminal."""

    def __init__(self, *middle: ProgressColumn) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            *middle,
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            transient=True,
        )

    @contextmanager
    def live(self) -> Iterator[Self]:
        """Show the bar inside the block."""
        if self._console.is_terminal:
            with self._bar:
                yield self
        else:
            yield self


class ProgressLine(_Line):
    """The progress of a job on standard error: stage, loss, speed, time left.

    If standard error is not a terminal, one line is printed for each stage when the job ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[Stage, TaskID] = {}
        self._last: dict[Stage, ProgressEvent] = {}

    def follow(self, items: Iterable[Item], take: Callable[[Item], object] = lambda _: None) -> None:
        """Pass each item of an iterable that reports its progress to :meth:`show`."""
        for item in items:
            take(item)
        self._finish()

    def run(self, work: Generator[object, None, Result]) -> Result:
        """Run a generator of events to its end and return its result."""
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                self._finish()
                result: Result = stop.value
                return result
            self.show(event)

    def show(self, event: object) -> None:
        """Show progress or a notice."""
        if isinstance(event, Notice):
            self._console.print(notice_text(event.text), highlight=False)
        if not isinstance(event, ProgressEvent):
            return
        self._last[event.stage] = event
        if not self._console.is_terminal:
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bar.add_task(_VERBS[event.stage], total=event.total, detail="")
        self._bar.update(self._tasks[event.stage], completed=event.done, total=event.total, detail=_detail(event))

    def _finish(self) -> None:
        for stage, event in self._last.items():
            task = self._tasks.pop(stage, None)
            if task is not None:
                self._bar.remove_task(task)
            loss = "" if event.loss is None else f", loss {event.loss:.3f}"
            one, several = _UNITS[stage]
            self._console.print(
                f"{_VERBS[stage]:<11} {event.done} {one if event.done == 1 else several} in {event.elapsed:.1f} s "
                f"({event.rate:.1f} {several}/s{loss})",
                highlight=False,
            )
        self._last.clear()


class CasesLine(_Line):
    """The progress over the cases of a cohort on standard error; one line per case if that is not a terminal."""

    def __init__(self, total: int) -> None:
        super().__init__(TextColumn("cases"), TimeRemainingColumn())
        self._task = self._bar.add_task("predicting", total=total, detail="")
        self._total, self._done, self._failed = total, 0, 0

    def tell(self, text: str) -> None:
        """Print a message above the bar."""
        self._console.print(notice_text(text), highlight=False, markup=False, soft_wrap=True)

    def advance(self, name: str, seconds: float, reason: str | None) -> None:
        """Count a case that is done, or failed for a reason."""
        self._done += 1
        self._failed += reason is not None
        detail = f"{self._failed} failed" if self._failed else ""
        self._bar.update(self._task, completed=self._done, detail=detail)
        if not self._console.is_terminal:
            what = f"done in {seconds:.1f} s" if reason is None else f"failed: {reason}"
            self.tell(f"{self._done}/{self._total} {name}: {what}")


def _detail(event: ProgressEvent) -> str:
    loss = "" if event.loss is None else f"loss {event.loss:.3f}  "
    return f"{loss}{event.rate:.1f} {_UNITS[event.stage][1]}/s  {_clock(event.remaining)} left"


def _clock(seconds: float) -> str:
    return time.strftime("%M:%S" if seconds < 3600 else "%H:%M:%S", time.gmtime(round(seconds)))
