"""The engine's session is killed at random moments: what comes back is one state of it, whole, and never an older one
than was said to be saved. The same with the panel, a person and a training: test_killed_panel.py."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import Case, open_case
from napari_dinoaugseg.session.autosave import Autosave
from napari_dinoaugseg.session.export import export_masks
from napari_dinoaugseg.session.index import Snapshot
from napari_dinoaugseg.session.labels import BookContent, Status
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore

KILLS = int(os.environ.get("DINOAUGSEG_KILLS", "12"))
LONGEST_LIFE = 0.5  # seconds
SHAPE = (24, 20, 8)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def deeds(session: Session, seed: int) -> Iterator[int]:
    """What a person and a model do, forever; the same for the same seed and the same labels at the start."""
    random, book = np.random.default_rng(seed), session.labels
    number = 0
    while True:
        index = int(random.integers(SHAPE[2]))
        classes = [0, *(entry.number for entry in book.classes)]
        labels = random.choice(classes, session.case.slice_shape(index)).astype(np.uint16)
        deed = random.choice(["paint", "paint", "predict", "accept", "clear", "undo", "class"])
        if deed == "paint":
            book.set_manual(index, labels)
        elif deed == "predict":
            book.set_prediction(index, labels, float(random.random()))
        elif deed == "accept" and book.status(index) is Status.PREDICTED:
            book.accept(index)
        elif deed == "clear":
            book.clear(index)
        elif deed == "undo":
            book.undo()
        elif deed == "class" and len(book.classes) < 5:
            book.add_class()
        number += 1
        yield number


def live(folder: Path, image: Path, seed: int, ledger: int) -> None:
    """One life of the program, until it is killed. Writes into the ledger what it may call saved."""
    case = open_case(image, plane="axial")
    store = SessionStore(folder / "session", case)
    session = Session(case)
    session.resume(store.load()[0])
    autosave = Autosave(store, lambda problem: None)
    random = np.random.default_rng(seed)
    os.write(ledger, b"0\n")
    for number in deeds(session, seed):
        autosave.request(session.snapshot({"life": seed, "number": number}))
        time.sleep(float(random.random()) * 0.004)
        if number % 7 == 0 and autosave.wait(10):
            os.write(ledger, f"{number}\n".encode())
        if number % 20 == 0:
            export_masks(session, folder / "mask.nii.gz")


def wait_until(holds: Callable[[], bool], patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "the program did not begin"
        time.sleep(0.002)


def replayed(case: Case, start: Snapshot, seed: int, number: int) -> BookContent:
    """The label book after some deeds of a life."""
    session = Session(case)
    session.resume(start)
    if number:
        next(done for done in deeds(session, seed) if done == number)
    return session.labels.content()


def assert_same(found: BookContent, expected: BookContent) -> None:
    assert found.classes == expected.classes
    for layer, slices in expected.layers.items():
        assert set(found.layers[layer]) == set(slices)
        for index, labels in slices.items():
            np.testing.assert_array_equal(found.layers[layer][index], labels)


@pytest.mark.slow
def test_a_killed_session_comes_back_whole_and_not_older_than_it_said(tmp_path, record_property):
    image = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(1).integers(0, 90, SHAPE).astype(np.int16), np.eye(4)), image)
    case = open_case(image, plane="axial")
    random = np.random.default_rng(0)
    fork = multiprocessing.get_context("fork")
    ledger = tmp_path / "ledger"
    start = Snapshot(BookContent(), Session(case).settings)
    first = SessionStore(tmp_path / "session", case)
    first.save(start)
    first.close()
    deeds_done = 0
    for seed in range(KILLS):
        with ledger.open("wb", buffering=0) as file:
            life = fork.Process(target=live, args=(tmp_path, image, seed, file.fileno()))
            life.start()
            if seed % 5:  # some die while they are born; where the tests fill the memory, that takes long
                wait_until(lambda: ledger.stat().st_size > 0)
            time.sleep(float(random.random()) * LONGEST_LIFE)
            assert life.is_alive(), "the program ended by itself"
            life.kill()
            life.join()
        promised = [int(line) for line in ledger.read_text().split("\n")[:-1]]

        store = SessionStore(tmp_path / "session", case)
        found, problems = store.load()
        store.close()

        assert problems == []
        number = found.view["number"] if found.view.get("life") == seed else 0
        assert number >= max(promised, default=0), f"life {seed}: promised {promised[-1]}, found {number}"
        assert_same(found.book, replayed(case, start, seed, number))
        if (tmp_path / "mask.nii.gz").exists():
            assert np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj).shape == SHAPE
        deeds_done += number
        start = Snapshot(found.book, found.settings)
    assert deeds_done > KILLS  # they did live
    record_property("figures", f"{KILLS} kills, {deeds_done} saved deeds")
