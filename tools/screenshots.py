"""Takes the screenshots of the docs: the panel on the sample case, and on a project of three parts of it.

    make screenshots        # or: python tools/screenshots.py [--theme light] [--folder DIR]

Needs a display (make gives a virtual one) and the extras offline and demo.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.panel import Panel

SIZE = (1280, 800)
SHOWN = 72  # a labelled slice in the middle of the brain
EXPORTED = "brain_mask.nii.gz"
PATIENCE = 1200  # seconds for each step, on a busy machine too


class Stage:
    """A napari window with the panel, and a camera."""

    def __init__(self, folder: Path, theme: str) -> None:
        import napari
        from napari._qt.dialogs.qt_notification import NapariQtNotification

        from napari_dinoaugseg.gui.demo import PLUGIN

        self.toast = NapariQtNotification

        self.folder = folder
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        self.window: Any = self.viewer.window._qt_window
        self.window.resize(*SIZE)
        self.panel: Panel = self.viewer.window.add_plugin_dock_widget(PLUGIN)[1]

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Let Qt work until a condition holds, for so long at most."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            QApplication.processEvents()
            time.sleep(0.005)

    def picture(self, name: str) -> None:
        """Save what the window shows, once it has settled."""
        self.spin(1.5)
        self.close_toasts()
        path = self.folder / f"{name}.png"
        self.window.grab().save(str(path))
        print(path)

    def close_toasts(self) -> None:
        """Hide napari's own words, on Qt say, which are not what is shown."""
        for toast in self.window.findChildren(self.toast):
            toast.close()

    @property
    def canvas(self) -> Any:
        """The widget that shows the slice."""
        from qtpy.QtWidgets import QOpenGLWidget

        return self.window.centralWidget().findChild(QOpenGLWidget)

    def show_section(self, title: str) -> None:
        """Unfold a section and scroll to it."""
        fold = self.panel.folds[title]
        fold.set_open(True)
        self.spin(0.3)
        bar = self.panel.scroll_area.verticalScrollBar()
        bar.setValue(fold.y())


def label(controller: Controller) -> None:
    """Label five slices of the sample as a person would have painted them."""
    from napari_dinoaugseg.case.array import CLASS_NAMES, LABELLED_SLICES, brain_sample

    session, layers = controller.session, controller.layers
    if session is None or layers is None:
        msg = "the sample case did not open"
        raise RuntimeError(msg)
    truth = session.case.to_slices(np.asarray(brain_sample().tissue.dataobj))  # type: ignore[attr-defined]
    for number, name in CLASS_NAMES.items():
        if number in {entry.number for entry in session.labels.classes}:
            controller.labels.rename_class(number, name)
        else:
            controller.labels.add_class(name)
    for index in LABELLED_SLICES:
        layers.manual.data[index] = truth[index]
    layers.manual.refresh()
    controller.flush()
    controller.view.go_to(SHOWN)


def take(folder: Path, theme: str) -> None:
    """Play the loop and save a picture in each state."""
    from napari_dinoaugseg.gui.start import Last, remember

    folder.mkdir(parents=True, exist_ok=True)
    remember(Last("project", Path("livers"), datetime(2026, 11, 27, 15, 12, tzinfo=UTC)))
    stage = Stage(folder, theme)
    controller = stage.panel.controller
    stage.picture("1_empty")
    controller.setup.change(encoder="efficientnet-lite0")
    controller.cases.open_sample()
    stage.spin(PATIENCE, lambda: controller.session is not None and not controller.jobs.busy)
    label(controller)
    stage.spin(5)  # napari's own notices fade
    stage.picture("2_labelled")
    controller.jobs.train()
    stage.spin(PATIENCE, lambda: controller.jobs.last_stage == "train" and len(stage.panel.train.curve.steps) > 60)
    stage.picture("3_training")
    stage.spin(PATIENCE, lambda: controller.jobs.last_stage == "predict" and not controller.jobs.busy)
    controller.view.go_to(SHOWN + 13)
    if controller.layers is not None:
        controller.layers.show_confidence(True)
    stage.show_section("Review")
    stage.picture("4_review")
    if controller.layers is not None:
        controller.layers.show_confidence(False)
    stage.show_section("Export")
    for index in range(controller.session.case.n_slices):  # or the export would ask about what nobody has looked at
        controller.view.go_to(index)
    controller.view.go_to(SHOWN + 13)
    with patch("qtpy.QtWidgets.QFileDialog.getSaveFileName", return_value=(str(folder / EXPORTED), "")):
        stage.panel.export.mask_button.click()
    stage.spin(PATIENCE, lambda: not controller.jobs.busy)
    stage.picture("5_exported")
    (folder / EXPORTED).unlink()
    take_saved(stage)
    take_project(stage)
    stage.viewer.close()


def take_saved(stage: Stage) -> None:
    """Open the case again: its labels are offered; then as it looks while another window has them."""
    from napari_dinoaugseg.session.store import SessionStore

    controller = stage.panel.controller
    controller.cases.open_sample()
    stage.spin(PATIENCE, lambda: bool(controller.sessions.offers) and not controller.jobs.busy)
    controller.view.go_to(SHOWN)
    stage.panel.scroll_area.verticalScrollBar().setValue(0)
    stage.picture("6_continue")
    saved, session = controller.sessions.offers[0], controller.session
    if session is None:
        msg = "the sample case did not open"
        raise RuntimeError(msg)
    other = SessionStore(saved.folder, session.case)
    controller.sessions.go_on(saved)
    stage.spin(PATIENCE, lambda: bool(controller.read_only) and not controller.jobs.busy)
    stage.picture("7_read_only")
    other.close()


def take_project(stage: Stage) -> None:
    """Add three parts of the sample to a project, label slices of two, train, and go to the third."""
    import nibabel as nib

    from napari_dinoaugseg.case.array import brain_sample
    from napari_dinoaugseg.session.adding import cases_of_files

    controller, sample = stage.panel.controller, brain_sample()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, truths = [], []
        for number, rows in enumerate((slice(20, 70), slice(50, 100), slice(80, 130)), start=1):
            files.append(folder / f"patient {number}.nii.gz")
            part = sample.image.slicer[:, :, rows]
            nib.save(part, files[-1])
            truths.append(np.asarray(sample.tissue.slicer[:, :, rows].dataobj))
        controller.project.create(folder / "brains")
        stage.spin(PATIENCE, lambda: controller.project.current is not None and not controller.jobs.busy)
        controller.project.add(cases_of_files(files))
        stage.spin(PATIENCE, lambda: len(controller.project.order.cases) == len(files) and not controller.jobs.busy)
        controller.setup.change(preset="fast", encoder="efficientnet-lite0")
        for number in range(2):
            controller.project.open_case(controller.project.order.cases[number])
            stage.spin(PATIENCE, lambda: not controller.jobs.busy)
            session, layers = controller.session, controller.layers
            if session is None or layers is None:
                msg = "a case of the project did not open"
                raise RuntimeError(msg)
            truth = session.case.to_slices(truths[number])  # type: ignore[attr-defined]
            while len(session.labels.classes) < truth.max():
                controller.labels.add_class()
            for index in (10, 25, 40):
                layers.manual.data[index] = truth[index]
            layers.manual.refresh()
            controller.flush()
        controller.jobs.train()
        stage.spin(PATIENCE, lambda: controller.jobs.last_stage == "predict" and not controller.jobs.busy)
        controller.project.step(1)
        stage.spin(
            PATIENCE,
            lambda: not controller.jobs.busy and bool(controller.session and controller.session.labels.confidence),
        )
        controller.view.go_to(25)
        stage.panel.scroll_area.verticalScrollBar().setValue(0)
        stage.show_section("Project")
        stage.picture("8_project")
        controller.cases.close()
        controller.project.close()


def main() -> None:
    """Read the arguments and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theme", default="dark", choices=("dark", "light"))
    parser.add_argument("--folder", type=Path, default=Path("docs/screenshots"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as sessions, tempfile.TemporaryDirectory() as cache:
        # Neither offer the person's labels and last case, nor add to them.
        os.environ["DINOAUGSEG_SESSIONS"], os.environ["DINOAUGSEG_CACHE"] = sessions, cache
        take(arguments.folder, arguments.theme)


if __name__ == "__main__":
    main()
