"""Feeds damaged files to a reader in a process of its own, and holds it to its promise.

The promise: whatever the bytes are, a reader ends well or raises one of the project's errors, in one or two printable
lines, within a time and a memory that do not depend on what a header claims. Any other exception, a crash, a hang or
too much memory is a failure; it is shown with the number of the case and the command that repeats that case alone.

The number of a case is the seed of everything in it, so a case is the same on every machine with the same libraries.
The cases run in a child (`serve`), thousands in one, which the parent replaces after a crash or a hang.

A target lies in a module under its name, so that the child finds it:

    TARGET = Target("nifti", seeds=make_files, mutate=damage, check=open_it)

    def test_damaged_files_are_refused(record_property):
        fuzz(f"{__name__}:TARGET", record_property)

More cases than in the daily run: DINOAUGSEG_FUZZ_CASES (how many) and DINOAUGSEG_FUZZ_SECONDS (how long at most), both
for each target. One case alone, with its traceback: `python -m tests.fuzz tests.fuzz.test_fuzz_images:NIFTI 17`.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORY = 2 * 2**30  # bytes of address space beyond what the imports take
SECONDS = 10  # of processor time for one case, so that a busy machine is no failure
WALL_SECONDS = 120  # for one case, for what waits without working
START_SECONDS = 300  # for the imports and the sound files
MOST_FAILURES = 8  # a target that fails everywhere need not be run to its end

Files = Mapping[str, bytes]  # contents by name, with forward slashes for folders


@dataclass(frozen=True)
class Target:
    """One reader, the sound files it is fed from, and how they are damaged.

    Attributes:
        name: for reports and folder names.
        seeds: makes the sound files; called once in a process. One seed is all the files of one case.
        mutate: gives the damaged files of one case; all chance comes from the generator.
        check: reads the files in a folder the whole way; returns, or raises what the reader raises. What it writes
            goes into that folder, which is emptied afterwards.
        memory: bytes that a case may take.
        seconds: processor time that a case may take, in whole seconds.
        cases: how many in the daily run.
        own: a person's own images: there a refusal may come after the memory ran out, which a stranger's file may not
            reach.
    """

    name: str
    seeds: Callable[[], Sequence[Files]]
    mutate: Callable[[Files, np.random.Generator], Files]
    check: Callable[[Path], None]
    memory: int = MEMORY
    seconds: int = SECONDS
    cases: int = 150
    own: bool = False

    @cached_property
    def made(self) -> Sequence[Files]:
        """The sound files."""
        return list(self.seeds())

    def case(self, number: int) -> dict[str, bytes]:
        """Return the files of one case; the first cases are the sound files themselves."""
        if number < len(self.made):
            return dict(self.made[number])
        rng = np.random.default_rng(number)
        return dict(self.mutate(self.made[int(rng.integers(len(self.made)))], rng))


def find(name: str) -> Target:
    """Return the target called `module:attribute`."""
    module, _, attribute = name.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, Target):
        msg = f"{name} is no Target"
        raise TypeError(msg)
    return target


def write(files: Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# --- the child: runs case after case, and says in one line how each ended ---


def serve(name: str, first: int, end: int) -> None:
    """Run cases `first` to `end` - 1 and write one line of JSON for each to the standard output of the process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    faulthandler.enable()
    target = find(name)
    scratch = Path(tempfile.mkdtemp(prefix="case-"))
    try:
        for number in range(len(target.made)):  # imports what readers import late, before the memory is limited
            _run_once(target, number, scratch)
        base = _resident()
        answers.write('[-1, "ready", "", 0]\n')
        answers.flush()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = _address_space() + target.memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in range(first, end):
            used = resource.getrusage(resource.RUSAGE_SELF)
            resource.setrlimit(
                resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + target.seconds + 1, resource.RLIM_INFINITY)
            )
            outcome, detail = _run_once(target, number, scratch)
            peak = _resident()
            if outcome != "failed" and peak > base + target.memory:
                outcome, detail = "failed", f"MemoryUse\n{(peak - base) >> 20} MiB resident"
            answers.write(json.dumps([number, outcome, detail, peak]) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_once(target: Target, number: int, scratch: Path) -> tuple[str, str]:
    """Return how a case ended: "read", "refused" or "failed", and why."""
    folder = scratch / "case"
    folder.mkdir()
    try:
        write(target.case(number), folder)
        return judge(lambda: target.check(folder), own=target.own)
    finally:
        shutil.rmtree(folder)
        gc.collect(0)


def judge(run: Callable[[], None], *, own: bool = False) -> tuple[str, str]:
    """Run something and tell how it ended, by the promise at the top of this file."""
    from napari_dinoaugseg.errors import DinoAugSegError

    try:
        run()
    except DinoAugSegError as error:
        # Refused in good words, but only after as much was asked for as the file claims to hold.
        if isinstance(error.__cause__, MemoryError) and not own:
            return "failed", "MemoryError behind a refusal\n" + "".join(traceback.format_exception(error))
        message = str(error)
        lines = message.splitlines()
        # A message goes to a terminal: bytes of a stranger's file must not reach it as escape codes.
        if 1 <= len(lines) <= 2 and all(line.isprintable() for line in lines):
            return "refused", f"{type(error).__name__}\n{message}"
        return "failed", f"a message that is not one or two printable lines\n{message!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        # One failure for each place in our code: thousands of cases end in the same line.
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "napari_dinoaugseg" in frame.filename] or list(frames)
        place = f"{type(error).__name__} in {Path(ours[-1].filename).name}, {ours[-1].name}"
        return "failed", f"{place}\n" + "".join(traceback.format_exception(error))
    return "read", ""


def _resident() -> int:
    """Return the most bytes that this process has held so far."""
    try:
        # getrusage would tell of the parent too: a child starts with what its parent held when it was forked.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # no /proc: macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no /proc: what macOS maps for a process of this kind
        return 8 * 2**30


# --- the parent: starts children, counts, and says how to repeat what failed ---


@dataclass
class Tally:
    """What happened to one target."""

    name: str
    cases: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = f"{self.cases} cases, {self.read} read, {self.refused} refused, {len(self.failures)} kinds of failure"
        return f"{self.name}: {counts}, {self.seconds:.0f} s, peak {self.peak / 2**20:.0f} MiB resident"


def fuzz(name: str, record_property: Callable[[str, object], None] | None = None) -> Tally:
    """Run a target for as many cases as the environment asks for, and fail the test when one broke the promise."""
    target = find(name)
    cases = int(os.environ.get("DINOAUGSEG_FUZZ_CASES", target.cases))
    seconds = float(os.environ.get("DINOAUGSEG_FUZZ_SECONDS", "600"))
    tally = run(name, cases, seconds)
    if record_property is not None:
        record_property("fuzz", str(tally))
    if tally.failures:
        msg = f"{tally}\n\n" + "\n\n".join(tally.failures.values())
        raise AssertionError(msg)
    # A mutator that leaves nothing sound, or nothing damaged, would test only half of a reader.
    assert tally.read, f"{tally}: no case was read"
    assert tally.refused, f"{tally}: no case was refused"
    return tally


def run(name: str, cases: int, seconds: float = 600.0, wall_seconds: float = WALL_SECONDS) -> Tally:
    """Run the cases 0 to `cases` - 1 of a target, or as many as the time allows."""
    target = find(name)
    tally = Tally(target.name)
    start = time.monotonic()
    number = children = 0
    while number < cases and time.monotonic() - start < seconds and max(children, len(tally.failures)) < MOST_FAILURES:
        children += 1
        with _Child(name, number, cases) as child:
            number = _watch(child, name, number, cases, tally, start + seconds, wall_seconds)
    tally.seconds = time.monotonic() - start
    return tally


def _watch(
    child: _Child, name: str, number: int, cases: int, tally: Tally, deadline: float, wall_seconds: float
) -> int:
    """Take the answers of a child until it is done, broken or out of time; return the next case."""
    started = child.answer(START_SECONDS)
    while number < cases:
        answer = child.answer(wall_seconds) if started else None
        if answer is None:
            _note_failure(tally, name, number, child.what_ended_it())
            tally.cases += 1
            return number + 1
        outcome, detail, peak = answer
        tally.cases += 1
        tally.read += outcome == "read"
        tally.refused += outcome == "refused"
        tally.peak = max(tally.peak, peak)
        if outcome == "failed":
            _note_failure(tally, name, number, detail)
            if detail.startswith("MemoryUse"):  # the peak of a process never falls again
                return number + 1
        number += 1
        if time.monotonic() > deadline or len(tally.failures) >= MOST_FAILURES:
            break
    return number


def _note_failure(tally: Tally, name: str, number: int, detail: str) -> None:
    kind, _, rest = detail.partition("\n")
    if kind in tally.failures:
        return
    folder = Path(tempfile.mkdtemp(prefix=f"dinoaugseg-fuzz-{tally.name.replace(' ', '-')}-{number}-"))
    write(find(name).case(number), folder)
    again = f"{Path(sys.executable).name} -m tests.fuzz {name} {number}"
    tally.failures[kind] = f"case {number}: {kind}\n  files: {folder}\n  again: {again}\n{rest[-3000:]}"


class _Child:
    """A process that runs cases and answers one by one."""

    def __init__(self, name: str, first: int, end: int) -> None:
        # In memory where that can be had: writers wait until a disk has taken their bytes, a busy one for seconds.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = tempfile.mkdtemp(prefix="dinoaugseg-fuzz-child-", dir=memory)
        self._log = Path(self._folder, "log")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # Each arena of malloc reserves 64 MiB of address space for a thread, which is none of the reader's doing.
            "MALLOC_ARENA_MAX": "2",
            "TMPDIR": self._folder,
            "HF_HUB_OFFLINE": "1",
            "DINOAUGSEG_CACHE": self._folder,
        }
        command = [sys.executable, "-m", "tests.fuzz", name, str(first), str(end)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=log, bufsize=0
            )
        self._pending = b""
        self._hung = False

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def answer(self, wait: float) -> tuple[str, str, int] | None:
        """Return (outcome, detail, peak memory) of the next case; None when the process ended or hangs."""
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            if not select.select([self._process.stdout], [], [], wait)[0]:
                self._hung = True
                return None
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer: list[Any] = json.loads(line)
        return str(answer[1]), str(answer[2]), int(answer[3])

    def what_ended_it(self) -> str:
        """Say why there was no answer, with the last lines of the log."""
        if self._hung:
            self._process.send_signal(signal.SIGABRT)  # has faulthandler write where it hangs
            time.sleep(0.5)
            reason = "Hang: no answer in time"
        else:
            code = self._process.wait()
            known = {-signal.SIGXCPU: "Hang: too much processor time"}
            reason = known.get(code, f"Crash: {signal.Signals(-code).name}" if code < 0 else f"Exit with code {code}")
        return f"{reason}\n{self._log.read_bytes()[-3000:].decode(errors='replace')}"
