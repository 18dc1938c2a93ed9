"""The two walks of ARCHITECTURE.md: its lists name the functions through which a label and a mask really pass."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from qtpy.QtCore import Qt

import napari_dinoaugseg
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session
from tests.gui.conftest import SMALL, wait_idle
from tests.gui.test_painting import stroke
from tests.session.test_session import drain

ROOT = Path(__file__).parents[2]
PACKAGE = Path(napari_dinoaugseg.__file__).parent
MOST_FILES = 8


def walk(heading: str) -> list[tuple[str, str]]:
    """The steps under a heading of ARCHITECTURE.md: file, relative to the package, and qualified name."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", section, flags=re.MULTILINE)


class Trace:
    """The functions of the package in the order of their first calls, and the files of their callers, nearest first."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], list[str]] = {}
        self._names: dict[CodeType, tuple[str, str] | None] = {}

    def _name(self, code: CodeType) -> tuple[str, str] | None:
        if code not in self._names:
            path = Path(code.co_filename)
            inside = path.is_relative_to(PACKAGE)
            self._names[code] = (path.relative_to(PACKAGE).as_posix(), code.co_qualname) if inside else None
        return self._names[code]

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        called = self._name(frame.f_code) if event == "call" else None
        if called is None or called in self.calls:
            return
        callers, above = [], frame.f_back
        while above is not None:
            caller = self._name(above.f_code)
            if caller is not None:
                callers.append(caller[0])
            above = above.f_back
        self.calls[called] = callers

    @contextmanager
    def on(self) -> Iterator[None]:
        """Trace the thread that this is entered in."""
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)

    def through(self, work: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
        """Trace work in the thread that draws its events, which Qt starts and Python's threading does not know."""
        with self.on():
            return (yield from work)


def check(steps: list[tuple[str, str]], trace: Trace) -> None:
    """The steps were taken in their order, and no other file of the package stands between them."""
    called = list(trace.calls)
    missing = [step for step in steps if step not in called]
    assert not missing
    assert sorted(steps, key=called.index) == steps
    files: set[str] = set()
    for file, name in steps:
        callers = trace.calls[file, name]
        earlier = next((place for place, caller in enumerate(callers) if caller in files), 0)  # 0: called by an event
        files |= {file, *callers[:earlier]}
    assert len(files) <= MOST_FILES, sorted(files)


@pytest.mark.shared_window
def test_a_painted_label_reaches_the_loss_as_the_walk_describes(controller, case, panel, qtbot, monkeypatch):
    trace, session = Trace(), controller.session
    train = session.train
    monkeypatch.setattr(session, "train", lambda cancel: trace.through(train(cancel)))
    controller.setup.change(steps=2)
    with trace.on():
        controller.view.go_to(8)
        stroke(qtbot, controller.viewer)
        qtbot.waitUntil(lambda: controller.session.labels.labelled == [8], timeout=5000)
        qtbot.waitUntil(panel.head.train_button.isEnabled, timeout=5000)
        qtbot.mouseClick(panel.head.train_button, Qt.MouseButton.LeftButton)
        wait_idle(qtbot, controller)
    check(walk("From brush to loss"), trace)


def test_a_mask_reaches_its_nifti_file_as_the_walk_describes(blob_files, tmp_path):
    session = Session(open_case(blob_files[0], plane="axial"), Settings(**SMALL), ComputeConfig(device="cpu"))
    session.load_labels(blob_files[1], [4, 8])
    drain(session.train())
    trace = Trace()
    with trace.on():
        list(session.predict(8))
        session.export(tmp_path / "mask.nii.gz")
    check(walk("From predictor to NIfTI"), trace)


@pytest.mark.parametrize("heading", ["From brush to loss", "From predictor to NIfTI"])
def test_a_walk_passes_at_most_eight_files(heading):
    assert 1 < len({file for file, _ in walk(heading)}) <= MOST_FILES
