"""A project is killed at random moments: it opens again, and every case and label that was saved is there."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.session.project import Project, ProjectCase
from tests.faults.test_killed_session import KILLS, LONGEST_LIFE, wait_until

SHAPE = (24, 20, 6)
IMAGES = 8
BITS = 2 ** np.arange(20)  # a row of a slice holds a number

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def label(project: Project, case: ProjectCase, index: int, number: int) -> None:
    """Paint a number into a slice, as classes 0 and 1, and save it."""
    session, store, problems = project.session(case)
    assert problems == []
    if not session.labels.classes:
        session.labels.add_class()
    labels = np.zeros(session.case.slice_shape(index), np.uint16)
    labels[0, : len(BITS)] = (number // BITS) % 2
    session.paint(index, labels)
    project.keep(case, session, store)
    store.close()


def number_in(project: Project, case: ProjectCase, index: int) -> int:
    book, problems = project.book(case)
    assert problems == []
    labels = book.manual(index)
    return 0 if labels is None else int((labels[0, : len(BITS)] * BITS).sum())


def live(folder: Path, first: int, ledger: int) -> None:
    """One life of the program, until it is killed. Writes into the ledger what it has saved."""
    random, number = np.random.default_rng(first), first
    project = Project(folder / "project")
    os.write(ledger, b"born 0 0\n")
    while True:
        number += 1
        deed = random.choice(["add", "label", "label", "label", "done", "rename"])
        case = project.cases[random.integers(len(project.cases))] if project.cases else None
        if deed == "add" or case is None:
            case, _ = project.add(folder / f"image{random.integers(IMAGES)}.nii", plane="native")
            os.write(ledger, f"add {case.number} 0\n".encode())
        elif deed == "label":
            index = int(random.integers(SHAPE[2]))
            label(project, case, index, number)
            os.write(ledger, f"{case.number} {index} {number}\n".encode())
        elif deed == "done":
            case.is_done = not case.is_done
            project.save_case(case)
        else:
            project.save()


@pytest.mark.slow
def test_a_killed_project_opens_again_with_all_that_was_saved(tmp_path, record_property):
    for n in range(IMAGES):
        voxels = np.random.default_rng(n).integers(0, 90, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"image{n}.nii")
    random, fork, ledger = np.random.default_rng(0), multiprocessing.get_context("fork"), tmp_path / "ledger"
    saved: dict[tuple[int, int], int] = {}
    added: set[int] = set()
    for life_number in range(KILLS):
        first = life_number * 1_000  # more than a life does, and 200 lives fit into the bits
        with ledger.open("wb", buffering=0) as file:
            life = fork.Process(target=live, args=(tmp_path, first, file.fileno()))
            life.start()
            if life_number % 5:  # some die while they are born
                wait_until(lambda: ledger.stat().st_size > 0)
            time.sleep(float(random.random()) * LONGEST_LIFE)
            assert life.is_alive(), "the program ended by itself"
            life.kill()
            life.join()
        for line in ledger.read_text().split("\n")[:-1]:
            what, one, other = line.split()
            if what == "add":
                added.add(int(one))
            elif what != "born":
                saved[int(what), int(one)] = int(other)
        with Project(tmp_path / "project") as project:
            assert project.is_writable
            assert added <= {case.number for case in project.cases}
            for case in project.cases:
                for index in range(SHAPE[2]):
                    # The label that was being saved may be there too.
                    assert number_in(project, case, index) >= saved.get((case.number, index), 0)
    assert saved  # they did live
    record_property("figures", f"project: {KILLS} kills, {len(added)} cases, {len(saved)} labelled slices")
