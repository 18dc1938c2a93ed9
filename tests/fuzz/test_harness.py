"""The harness of the fuzz tests sees what it is there to see."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.errors import CaseError
from tests.fuzz.harness import Files, Target, fuzz, run

# Case 0 is the sound file; of the damaged ones, one in four ends in a way of its own.
WRONG = 4


@pytest.fixture(autouse=True)
def _as_many_cases_as_the_target_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a long run."""
    monkeypatch.delenv("DINOAUGSEG_FUZZ_CASES", raising=False)


def sound() -> list[Files]:
    return [{"folder/file": b"\x00"}]


def damage(files: Files, rng: np.random.Generator) -> Files:
    return {name: content + bytes([1 + rng.integers(WRONG)]) for name, content in files.items()}


def reader(ending: Callable[[Path], object]) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        content = (folder / "folder" / "file").read_bytes()
        if content[-1] == WRONG:
            ending(folder)
        elif content[-1]:
            msg = f"{folder}: it is damaged."
            raise CaseError(msg)

    return check


def fail(error: BaseException) -> Callable[[Path], None]:
    def ending(_: Path) -> None:
        raise error

    return ending


def work(_: Path) -> None:
    while True:
        pass


def hide(_: Path) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise CaseError("too large") from error


def target(name: str, ending: Callable[[Path], object], **options: int) -> Target:
    return Target(name, sound, damage, reader(ending), **options)


class RawError(CaseError):
    """An error that does not pass its message through `Message`, which replaces escape codes."""

    def __init__(self) -> None:
        super().__init__("")

    def __str__(self) -> str:
        return "scan.nii: \x1b[2J is no type"


KIND = target("kind", lambda folder: None)
RAISING = target("raising", fail(KeyError("field")))
MANY_LINES = target("many lines", fail(CaseError("a\nb\nc")))
ESCAPES = target("escapes", fail(RawError()))
HIDDEN = target("hidden", hide)
CRASHING = target("crashing", lambda folder: os.abort())
GREEDY = target("greedy", lambda folder: np.empty(3 * 2**30, np.uint8), memory=2**30)
WORKING = target("working", work, seconds=1)
WAITING = target("waiting", lambda folder: time.sleep(99))


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are kept in the temporary folder; these are on purpose, and are not to pile up there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_is_read_and_what_is_refused_is_counted() -> None:
    tally = fuzz(f"{__name__}:KIND")
    assert tally.cases == KIND.cases
    assert min(tally.read, tally.refused) > KIND.cases // 5
    assert tally.read + tally.refused == tally.cases
    assert tally.peak > 2**20


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RAISING", "KeyError in test_harness.py, ending"),
        ("MANY_LINES", "a message that is not one or two printable lines"),
        ("ESCAPES", "a message that is not one or two printable lines"),
        ("HIDDEN", "MemoryError behind a refusal"),
        ("CRASHING", "Crash: SIGABRT"),
        ("GREEDY", "MemoryError in test_harness.py, <lambda>"),
        ("WORKING", "Hang: too much processor time"),
        ("WAITING", "Hang: no answer in time"),
    ],
)
def test_a_broken_promise_is_shown_and_can_be_repeated(name: str, kind: str) -> None:
    tally = run(f"{__name__}:{name}", cases=6, wall_seconds=1 if name == "WAITING" else 60)
    assert list(tally.failures) == [kind]
    assert tally.cases == 6  # a child that is gone is replaced
    shown = tally.failures[kind]
    number = int(shown.removeprefix("case ").partition(":")[0])
    folder = Path(shown.partition("files: ")[2].partition("\n")[0])
    assert (folder / "folder" / "file").read_bytes()[-1] == WRONG
    assert f"-m tests.fuzz {__name__}:{name} {number}" in shown


def test_a_target_that_fails_is_a_failed_test_and_tells_its_figures() -> None:
    told: list[object] = []
    with pytest.raises(AssertionError, match="1 kinds of failure"):
        fuzz(f"{__name__}:RAISING", lambda key, value: told.append(value))
    assert len(told) == 1
    assert "raising: 150 cases" in str(told[0])
