"""What is annotated, and how the engine sees it: study, plane, window, encoder, machine, device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFormLayout, QGridLayout, QVBoxLayout, QWidget

from napari_dinoaugseg.errors import SeveralSeriesError
from napari_dinoaugseg.gui.choices import ask_for_series, ask_for_volume, ask_for_window
from napari_dinoaugseg.gui.compute_choice import ComputeChoice
from napari_dinoaugseg.gui.core import in_the_panels_words
from napari_dinoaugseg.gui.dialogs import ask_for_file, ask_for_folder
from napari_dinoaugseg.gui.encoder_choice import EncoderChoice
from napari_dinoaugseg.gui.parts import as_sentence, button, choice, quietly, sentence
from napari_dinoaugseg.gui.windows import WINDOWS, show_window
from napari_dinoaugseg.study import Plane
from napari_dinoaugseg.study.files import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_OWN = "own values…"
_PICTURES = " ".join(f"*{suffix}" for suffix in sorted(PICTURE_SUFFIXES))
_FILES = f"Images (*.nii *.nii.gz *.nrrd *.dcm {_PICTURES});;All files (*)"


class StudySection(QWidget):
    """The section "Study"."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.facts = sentence()
        self.notes = sentence()
        self.notes.setObjectName("notes")
        self.layer_button = button(
            "Use selected layer", "Annotate the image layer that is selected in the layer list", self._use_layer
        )
        self.file_button = button("Open file…", "NIfTI, NRRD, DICOM, TIFF or a picture", self._open_file)
        self.folder_button = button("Open folder…", "A DICOM series, or pictures", self._open_folder)
        self.sample_button = button("Brain sample", "A T1 brain template to try the plugin with", self._open_sample)
        self.plane = choice(
            [plane.value for plane in Plane], "The direction of the slices; it can change until a slice is labelled"
        )
        self.plane.activated.connect(self._choose_plane)
        self.window_choice = choice(
            [*WINDOWS, _OWN],
            "Which grey values you look through; presets are for CT, in Hounsfield units. What the model sees "
            "stands in the Train section",
        )
        self.window_choice.activated.connect(self._choose_window)
        self.device = choice(["auto", "cpu", "cuda", "mps"], "What computes; auto takes the fastest that is there")
        self.device.activated.connect(lambda _: controller.use_device(self.device.currentText()))
        self.encoder = EncoderChoice(controller)
        self.machine = ComputeChoice(controller)
        self._arrange()
        for signal in (
            controller.session_changed,
            controller.settings_changed,
            controller.window_changed,
            controller.work_started,
            controller.work_finished,
        ):
            signal.connect(self.refresh)
        controller.choice_needed.connect(self._choose)
        self.refresh()

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.addWidget(self.facts)
        layout.addWidget(self.notes)
        grid = QGridLayout()
        grid.setSpacing(4)
        for position, widget in enumerate(
            (self.file_button, self.folder_button, self.layer_button, self.sample_button)
        ):
            grid.addWidget(widget, position // 2, position % 2)
        layout.addLayout(grid)
        form = QFormLayout()
        form.setSpacing(4)
        form.addRow("Plane", self.plane)
        form.addRow("Window", self.window_choice)
        form.addRow("Encoder", self.encoder)
        form.addRow("Compute on", self.machine)
        form.addRow("Device", self.device)
        layout.addLayout(form)

    def refresh(self, *_: object) -> None:
        """Show the study and the settings."""
        controller = self.controller
        idle = not controller.busy
        session = controller.session
        for widget in (self.layer_button, self.file_button, self.folder_button, self.sample_button):
            widget.setEnabled(idle)
        for widget in (self.device, self.encoder, self.machine):
            widget.setEnabled(idle)
        self.window_choice.setEnabled(session is None or not session.study.is_colour)
        is_volume = session is not None and session.study.kind == "volume"
        self.plane.setEnabled(idle and is_volume)
        if session is None:
            self.facts.setText("No study is open.")
            self.notes.hide()
            return
        study = session.study
        quietly(self.plane, lambda: self.plane.setCurrentText(study.plane.value))
        show_window(self.window_choice, controller.view_window)
        quietly(self.device, lambda: self.device.setCurrentText(controller.device))
        noun = "slice" if is_volume else "picture"
        height, width = study.slice_shape(0)
        spacing, distance = study.slice_spacing(0), study.slice_distance
        text = f"{study.name}: {study.n_slices} {noun}{'' if study.n_slices == 1 else 's'}, {width} × {height} pixels"
        if spacing is not None:
            text += f" of {spacing[1]:.3g} × {spacing[0]:.3g} mm"
        if distance is not None and study.n_slices > 1:
            text += f", {distance:.3g} mm apart"
        self.facts.setText(text + ".")
        self.notes.setText("\n".join(f"Note: {as_sentence(in_the_panels_words(notice))}" for notice in study.notices))
        self.notes.setVisible(bool(study.notices))

    # --- opening ----------------------------------------------------------------------------------------------------

    def _use_layer(self) -> None:
        from napari.layers import Image

        viewer = self.controller.viewer
        active = viewer.layers.selection.active
        images = [layer for layer in viewer.layers if isinstance(layer, Image) and layer.name != "confidence"]
        # With one image there is nothing to choose, whatever is selected.
        if not isinstance(active, Image) and len(images) == 1:
            active = images[0]
        self.controller.use_layer(active)

    def _open_file(self) -> None:
        path = ask_for_file(self, "study", "Open an image", _FILES)
        if path is not None:
            self.controller.open_path(path)

    def _open_folder(self) -> None:
        path = ask_for_folder(self, "study", "Open a folder with a DICOM series or pictures")
        if path is not None:
            self.controller.open_path(path)

    def _open_sample(self) -> None:
        self.controller.open_sample()

    def _choose(self, path: str | Path, error: Exception, chosen: Mapping[str, Any]) -> None:
        """Several series or volumes: let the person choose one, and open it; a series may hold several volumes."""
        option: str
        choice: str | int | None
        if isinstance(error, SeveralSeriesError):
            option, choice = "series", ask_for_series(self, error.series)
        else:
            option, choice = "component", ask_for_volume(self, getattr(error, "count", 1))
        if choice is not None:
            self.controller.open_path(path, **{**chosen, option: choice})

    # --- choosing ---------------------------------------------------------------------------------------------------

    def _choose_plane(self) -> None:
        self.controller.change_plane(Plane(self.plane.currentText()))
        self.refresh()

    def _choose_window(self) -> None:
        chosen = self.window_choice.currentText()
        if chosen == _OWN:
            session = self.controller.session
            low, high = session.study.intensity_range() if session is not None else (0.0, 255.0)
            chosen = ask_for_window(self, low, high) or self.controller.view_window
        self.controller.view_through(chosen)
        self.refresh()
