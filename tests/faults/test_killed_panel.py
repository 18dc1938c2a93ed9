"""The whole program is killed at random moments while a person paints, trains, accepts and exports: on reopening, every
stroke older than two seconds is there, and no file is half."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import Case, open_case
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.model.checkpoint import load_checkpoint
from napari_dinoaugseg.session.store import SessionStore, saved_sessions
from tests.blobs import write_case
from tests.faults.person import Ledger, blocked_until

KILLS = int(os.environ.get("DINOAUGSEG_KILLS", "2"))
PROMISE = 2.0  # seconds after which a stroke is on disk, if the window had a turn
LONGEST_LIFE = 7.0  # seconds of work
START = 300.0  # seconds that a busy machine may take until the work begins
PATIENTS = 2  # people at work at the same time, each with a case of their own

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")]


def live(image: Path, folder: Path, seed: int, random: np.random.Generator) -> float:
    """One life of the program; returns when it was killed, in seconds of the monotonic clock."""
    environment = {
        **os.environ,
        "DINOAUGSEG_SESSIONS": str(folder / "sessions"),
        "DINOAUGSEG_CACHE": str(folder / "cache"),
        "NAPARI_CONFIG": str(folder / "settings.yaml"),
    }
    ledger = folder / "ledger"
    for former in (ledger, folder / "heart"):
        former.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.faults.person", str(image), str(folder), str(seed)]
    with (folder / "log").open("wb") as log:
        program = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START
        early = seed % 10 == 9  # some are killed while they start
        if early:
            time.sleep(float(random.random()) * 5)
        while not early and not ledger.exists():
            assert program.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the program did not begin to work"
            time.sleep(0.02)
        if not early:
            time.sleep(float(random.random()) * LONGEST_LIFE)
        assert program.poll() is None, (folder / "log").read_text()
        killed = time.monotonic()
        program.kill()
        program.wait()
    return killed


def said(case: Case, folder: Path) -> np.ndarray:
    """What is on disk of what the person said, (slice, row, column)."""
    found = np.zeros((case.n_slices, *case.slice_shape(0)), np.uint16)
    for saved in saved_sessions(case.fingerprint, folder / "sessions"):
        store = SessionStore(saved.folder, case)
        assert store.is_writable, "a killed program still holds the lock"
        snapshot, problems = store.load()
        store.close()
        assert problems == []
        for layer in ("accepted", "manual"):  # the labels of the hand last: they count where both are there
            for index, labels in snapshot.book.layers[layer].items():
                found[index] = labels
        if isinstance(snapshot.model, Path):
            load_checkpoint(snapshot.model)
    return found


def assert_whole(case: Case, folder: Path) -> None:
    """The files that people and programs may find are whole."""
    mask = folder / "mask.nii.gz"
    if mask.exists():
        assert np.asarray(nib.load(mask).dataobj).shape == np.asarray(nib.load(case.path).dataobj).shape
    cache = FeatureCache(folder / "cache")
    for path in list(cache.folder.rglob("*.features")):
        assert cache.read(path.stem) is not None, f"{path} is half"


def one_patient(folder: Path, patient: int, kills: int) -> tuple[int, int, float]:
    """Kill and reopen; returns deeds done, how many were not on disk yet, and the oldest of these in seconds."""
    folder.mkdir()
    (folder / "sessions").mkdir()
    image, _ = write_case(folder, seed=patient)
    case = open_case(image, plane="axial")
    random = np.random.default_rng(patient)
    start = said(case, folder)
    deeds = lost = 0
    oldest = 0.0
    for life in range(kills):
        killed = live(image, folder, 10 * patient + life, random)
        entries = [(-np.inf, 0.0, start), *Ledger(folder / "ledger", start.shape).read()]
        found = said(case, folder)
        assert_whole(case, folder)
        blocked = blocked_until(folder / "heart", killed) if len(entries) > 1 else 0.0
        ages = [killed - when - (blocked - before) for when, before, _ in entries]
        promised = max(n for n, age in enumerate(ages) if age >= PROMISE)
        for index in range(case.n_slices):
            states = [labels[index] for _, _, labels in entries]
            matching = [n for n, labels in enumerate(states) if np.array_equal(labels, found[index])]
            assert matching, f"life {life}: slice {index} is as it never was"
            assert matching[-1] >= promised or np.array_equal(states[promised], found[index]), (
                f"life {life}: slice {index} lacks a stroke that was older than {PROMISE} s"
            )
        whole = [n for n, (_, _, labels) in enumerate(entries) if np.array_equal(labels, found)]
        if whole:
            lost += len(entries) - 1 - whole[-1]
            oldest = max([oldest, *(killed - when for when, _, _ in entries[whole[-1] + 1 :])])
        deeds += len(entries) - 1
        start = found
    return deeds, lost, oldest


def test_a_killed_program_finds_every_stroke_older_than_two_seconds(tmp_path, record_property):
    shares = [KILLS // PATIENTS + (patient < KILLS % PATIENTS) for patient in range(PATIENTS)]
    with ThreadPoolExecutor(PATIENTS) as pool:
        results = list(pool.map(lambda p: one_patient(tmp_path / str(p), p, shares[p]), range(PATIENTS)))

    deeds = sum(result[0] for result in results)
    assert deeds > 0
    record_property(
        "figures",
        f"the program was killed {KILLS} times in {deeds} deeds; {sum(result[1] for result in results)} deeds were not "
        f"on disk yet, the oldest {max(result[2] for result in results):.2f} s old",
    )
