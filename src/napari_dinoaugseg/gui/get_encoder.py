"""*Get DINOv3*: what it gives, how large it is and under which licence, and the download with its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QButtonGroup, QCheckBox, QDialog, QDialogButtonBox, QRadioButton, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.core import guarded
from napari_dinoaugseg.gui.jobs import Relay
from napari_dinoaugseg.gui.widgets import sentence, text_colour
from napari_dinoaugseg.learning.events import Cancel, Notice, Progress
from napari_dinoaugseg.native import importing_torch

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.model.specs import EncoderSpec

_GIVES = (
    "The method was published with DINOv3, a network by Meta trained on 1.7 billion images. EfficientNet-Lite0, which "
    "comes with this program, is smaller and was trained on 1.3 million. DINOv3 takes longer for each slice, and is "
    "weak on PET and electron microscopy."
)
_AFTER = (
    "The file is downloaded once, from huggingface.co into the hub's cache folder, where other programs find it too. "
    "No image leaves this computer. The next training starts from scratch, since a model works with one encoder only."
)
_FITS = {
    "tiny": "for a computer without a graphics card",
    "small": "for a graphics card, or for patience",
    "base": "for a graphics card",
    "large": "for a graphics card; the one in the paper",
}


class GetDinov3(QDialog):
    """Asks which DINOv3 to download, and for consent to its licence.

    Args:
        parent: the widget below.
        specs: of the DINOv3 encoders, the smallest first.
        slower: for each size, the time that a slice takes on a CPU relative to EfficientNet-Lite0.
        colour: of links.
    """

    def __init__(
        self, parent: QWidget | None, specs: Iterable[EncoderSpec], slower: Mapping[str, float], colour: str
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Get DINOv3")
        self.sizes: dict[str, QRadioButton] = {}
        group = QButtonGroup(self)
        layout = QVBoxLayout(self)
        layout.setSpacing(8)
        layout.addWidget(sentence(_GIVES))
        found = list(specs)
        for spec in found:
            size = spec.name.rpartition("-")[2]
            made = QRadioButton(f"{size}: {spec.megabytes} MB, {_FITS[size]}; on a CPU {slower[size]:g} times as slow")
            self.sizes[spec.name] = made
            group.addButton(made)
            layout.addWidget(made)
        self.sizes[found[0].name].setChecked(True)
        licence = f'<a href="{found[0].licence_url}" style="color: {colour}">{found[0].licence}</a>'
        self.licence = sentence(f"The weights are under the {licence}. {found[0].terms}", rich=True)
        self.licence.setOpenExternalLinks(True)
        self.consent = QCheckBox("I have read the licence and accept it")
        self.consent.toggled.connect(self._show_consent)
        layout.addWidget(self.licence)
        layout.addWidget(self.consent)
        layout.addWidget(sentence(_AFTER))
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        made_button = self.buttons.addButton("Download", QDialogButtonBox.ButtonRole.AcceptRole)
        assert made_button is not None  # noqa: S101 - for the stubs
        self.download_button = made_button
        self.download_button.setEnabled(False)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout.addWidget(self.buttons)
        self.resize(560, self.sizeHint().height())

    @property
    def chosen(self) -> str:
        """The name of the encoder."""
        return next(name for name, made in self.sizes.items() if made.isChecked())

    def _show_consent(self, given: bool) -> None:
        self.download_button.setEnabled(given)


class DinoDownload:
    """The download as a job of the panel."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def ask(
        self, parent: QWidget, specs: Mapping[str, EncoderSpec], slower: Mapping[str, float], then: Callable[[], None]
    ) -> None:
        """Ask which encoder to download, download it, then call ``then``."""
        wanted = [spec for spec in specs.values() if spec.source == "hub"]
        dialog = GetDinov3(parent, wanted, slower, text_colour(self.controller.viewer))
        if dialog.exec():
            self.fetch(specs[dialog.chosen], then)

    @guarded
    def fetch(self, spec: EncoderSpec, then: Callable[[], None]) -> None:
        """Download an encoder in the background, use it, and call ``then``.

        Stop keeps what was received for the next try.
        """
        controller, cancel, relay = self.controller, Cancel(), Relay()
        started = time.monotonic()

        def source() -> Generator[Any, None, bool]:
            with importing_torch():
                from napari_dinoaugseg.model import hub

            def on_bytes(done: int, total: int) -> None:
                if cancel:
                    raise hub.DownloadStoppedError
                relay(Progress("download", round(done / 1e6), round(total / 1e6), time.monotonic() - started))

            yield from ()
            try:
                hub.download(spec, lambda text: relay(Notice(text)), on_bytes)
            except hub.DownloadStoppedError:
                return False
            return True

        def done(finished: bool) -> None:
            if finished:
                controller.setup.change(encoder=spec.name)
                then()
                controller.notify(f"{spec.name} is on this machine now, and in use from the next training on.")
            else:
                controller.notify("The download was stopped; the next one goes on from what was received.")

        controller.jobs.start(f"Downloading {spec.name}", source, done, cancel, relay=relay)
