"""A quiet offer: masks that lie beside the pictures of a study can be its labels."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

from napari_dinoaugseg.gui.parts import button, row, sentence
from napari_dinoaugseg.study.pictures import find_masks_beside

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.study import Study


class MasksOffer(QWidget):
    """Shown while nothing is labelled and masks lie beside the pictures; loading them is the person's choice."""

    found = Signal(object, object)  # from the thread that looks: the study, and where its masks lie

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.place: Path | None = None
        self._study: Study | None = None
        self.text = sentence()
        self.load_button = button("Load them", "Take these masks as labels; Ctrl+Z takes it back", self._load)
        self.dismiss_button = button("No", "Begin without them; 'Load labels…' finds them later", self._dismiss)
        line = row(self.text, self.load_button, self.dismiss_button)
        line.setStretch(0, 1)
        self.setLayout(line)
        self.found.connect(self._on_found)
        controller.session_changed.connect(self._look)
        for signal in (
            controller.labels_changed,
            controller.sessions_changed,
            controller.work_started,
            controller.work_finished,
        ):
            signal.connect(self._refresh)
        self._look()

    def _look(self) -> None:
        """Look beside the pictures of another study, in the background: a network drive takes its time."""
        session = self.controller.session
        study = session.study if session is not None else None
        if study is not self._study:
            self._study, self.place = study, None
            if study is not None and study.kind == "pictures":
                threading.Thread(target=self._search, args=(study,), name="look-for-masks", daemon=True).start()
        self._refresh()

    def _search(self, study: Study) -> None:
        place = find_masks_beside(study)
        with contextlib.suppress(RuntimeError):  # the panel was closed meanwhile
            self.found.emit(study, place)

    def _on_found(self, study: Study, place: Path | None) -> None:
        if study is self._study:
            self.place = place
            self._refresh()

    def _refresh(self, *_: object) -> None:
        controller = self.controller
        session = controller.session
        wanted = self.place is not None and session is not None and not session.labels.labelled
        # Saved labels come first; they are asked about above.
        self.setVisible(wanted and not controller.read_only and not controller.sessions.offers)
        self.load_button.setEnabled(not controller.busy)
        if self.place is not None:
            self.text.setText(f"Masks seem to lie beside these pictures, in {self.place.name}.")
            self.text.setToolTip(str(self.place))

    def _load(self) -> None:
        if self.place is not None:
            self.controller.load_labels(self.place)

    def _dismiss(self) -> None:
        self.place = None
        self._refresh()
