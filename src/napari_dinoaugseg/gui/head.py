"""The head of the panel, always in view: which study this is, Train, Stop, and how far the work is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.estimate import Job, Pace, in_words, job
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.parts import button, row, sentence
from napari_dinoaugseg.gui.work_actions import PREDICTING, TRAINING
from napari_dinoaugseg.learning.events import Progress

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_PAUSE = 0.08  # seconds between two updates of the bar


class Head(QWidget):
    """The case in view, and the work on it.

    Attributes:
        pace: what this machine has shown; the Train section estimates with it.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.pace = Pace()
        self._job: Job | None = None
        self._shown = 0.0
        self._made_for = self._conditions()
        self.case = sentence()  # the panel puts it above everything else
        self.case.setObjectName("case")
        self.case.setStyleSheet("#case { font-weight: bold; font-size: 15px; }")
        self.train_button = button(
            "Train", tooltip("Learn from the labelled slices, then predict the others", "train"), controller.train
        )
        self.stop_button = button(
            "Stop", tooltip("Stop at the next step; what is there stays", "train"), controller.stop
        )
        self.doing = sentence()
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setFixedHeight(16)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        buttons = row(self.train_button, self.stop_button)
        buttons.setStretch(0, 1)
        layout.addLayout(buttons)
        layout.addWidget(self.doing)
        layout.addWidget(self.bar)
        self.doing.hide()
        self.bar.hide()
        controller.session_changed.connect(self.refresh)
        controller.settings_changed.connect(self._on_settings)
        controller.work_started.connect(self._on_start)
        controller.progressed.connect(self._on_progress)
        controller.work_finished.connect(self._on_end)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the name of the study, and what can be done."""
        session, busy = self.controller.session, self.controller.busy
        self.train_button.setEnabled(session is not None and not busy and not self.controller.read_only)
        self.stop_button.setEnabled(busy)
        if session is None:
            self.case.setText("No study is open")
            return
        count, noun = session.study.n_slices, "slice" if session.study.kind == "volume" else "picture"
        self.case.setText(f"{session.study.name} ({count} {noun}{'' if count == 1 else 's'})")
        self.case.setToolTip(str(session.study.path))

    def job(self) -> Job | None:
        """What a training now would come to; None while nothing is labelled."""
        controller = self.controller
        session = controller.session
        if session is None or not session.labels.labelled:
            return None
        warm = session.is_trained and not session.changes_since_training()
        learnt = {index for done in session.history for index in done.labelled} if warm else set()
        return job(
            controller.settings,
            controller.encoder_in_use or controller.encoder_expected,
            len([index for index in session.labels.labelled if index not in learnt]),
            len(session.labels.open_slices),
            kind=session.study.kind,
            classes=len(session.labels.classes),
            warm=warm,
        )

    def _conditions(self) -> object:
        """All that the pace depends on."""
        controller = self.controller
        settings = controller.settings.model_dump(exclude={"seed", "steps", "preset", "window"})
        return controller.device, controller.scheduler, tuple(settings.items())

    def _on_settings(self) -> None:
        conditions = self._conditions()
        if conditions != self._made_for:
            self._made_for = conditions
            self.pace.forget()
        self.refresh()

    def _on_start(self, name: str) -> None:
        first = "Asking the scheduler…" if self.controller.scheduler else "Loading the encoder…"
        self.doing.setText(f"{name}…" if name != TRAINING else first)
        self.doing.show()
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.show()
        if name == TRAINING or (name == PREDICTING and self._job is None):
            self._job = self.job()
        self.refresh()

    def _on_progress(self, event: Progress) -> None:
        self.pace.note(event)
        now = time.monotonic()
        if now - self._shown < _PAUSE and event.done < event.total:
            return
        self._shown = now
        self.bar.setRange(0, max(1, event.total))
        self.bar.setValue(event.done)
        self.bar.setFormat("%p %")
        if self.controller.stopping:
            self.doing.setText("Stopping…")
            return
        doing = event.words.capitalize()
        left = self.pace.left(self._job, event) if self._job is not None else None
        words = f"; {in_words(left)} left in all" if left is not None and left > 1 else ""
        self.doing.setText(f"{doing}{words}.")

    def _on_end(self) -> None:
        self.doing.hide()
        self.bar.hide()
        self.refresh()
