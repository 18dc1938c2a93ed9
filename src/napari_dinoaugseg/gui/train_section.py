"""Training: preset, how long it will take, Train and Stop, what happens now, and the loss."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.estimate import Pace, estimate, in_words
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.loss_curve import LossCurve
from napari_dinoaugseg.gui.parts import Collapsible, button, quietly, row, sentence
from napari_dinoaugseg.gui.settings_form import settings_form, show_settings
from napari_dinoaugseg.gui.work_actions import TRAINING
from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.learning.settings import PRESETS

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller

_HELP = {
    "fast": "fast: a first look in little time",
    "balanced": "balanced: good masks in a minute or two on a small machine",
    "paper": "paper: the authors' recipe, 768 pixels and 2000 steps; for a GPU",
}
_DOING = {
    "send": "sending slice {} of {}",
    "encode": "encoding slice {} of {}",
    "train": "training, step {} of {}",
    "predict": "predicting {} of {}",
}
_PAUSE = 0.08  # seconds between two updates of the bar


class TrainSection(QWidget):
    """The section "Train"."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.pace = Pace()
        self._shown = 0.0
        self._stage: str | None = None
        self._place = (controller.device, controller.scheduler)
        self.preset = QComboBox()
        self.preset.addItems(list(PRESETS))
        self.preset.setToolTip("\n".join(_HELP[name] for name in PRESETS))
        self.preset.activated.connect(lambda _: controller.use_preset(self.preset.currentText()))
        self.train_button = button(
            "Train", tooltip("Learn from the labelled slices, then predict the others", "train"), controller.train
        )
        self.stop_button = button(
            "Stop", tooltip("Stop at the next step; what is there stays", "train"), controller.stop
        )
        self.predict_button = button("Predict", "Predict again with what was learnt", controller.predict)
        self.lost = sentence("The scheduler cannot be used now; why is said above. What you painted is safe.")
        self.here_button = button(
            "Go on with this computer", "Compute here instead; the same work begins again", controller.compute_here
        )
        self.estimate_text = sentence()
        self.doing = sentence()
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.curve = LossCurve(controller.viewer)
        self.form = settings_form(controller.settings, self._set)
        self.more = Collapsible("More settings", self.form.native, opened=False)
        self._arrange()
        for signal in (
            controller.session_changed,
            controller.labels_changed,
            controller.settings_changed,
            controller.work_finished,
            controller.interrupted_changed,
        ):
            signal.connect(self.refresh)
        controller.session_changed.connect(self._on_session)
        controller.settings_changed.connect(self._settings_changed)
        controller.work_started.connect(self._on_start)
        controller.progressed.connect(self._on_progress)
        controller.work_finished.connect(self._on_end)
        self.refresh()

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.setSpacing(4)
        first = row(QLabel("Preset"), self.preset)
        first.setStretch(1, 1)
        layout.addLayout(first)
        second = row(self.train_button, self.stop_button, self.predict_button)
        second.setStretch(0, 1)
        layout.addLayout(second)
        layout.addWidget(self.lost)
        layout.addWidget(self.here_button)
        layout.addWidget(self.estimate_text)
        layout.addWidget(self.doing)
        layout.addWidget(self.bar)
        layout.addWidget(self.curve)
        layout.addWidget(self.more)
        self.doing.hide()
        self.bar.hide()
        self.curve.hide()

    # --- showing ----------------------------------------------------------------------------------------------------

    def refresh(self, *_: object) -> None:
        """Show what can be done, and how long it would take."""
        controller = self.controller
        session, busy = controller.session, controller.busy
        self.train_button.setEnabled(session is not None and not busy)
        self.predict_button.setEnabled(session is not None and session.is_trained and not busy)
        self.stop_button.setEnabled(busy)
        self.preset.setEnabled(not busy)
        self.form.native.setEnabled(not busy)
        quietly(self.preset, lambda: self.preset.setCurrentText(controller.settings.preset))
        for widget in (self.lost, self.here_button):
            widget.setVisible(bool(controller.interrupted) and not busy)
        self.estimate_text.setVisible(not busy)
        self.estimate_text.setText(self._estimate())

    def _estimate(self) -> str:
        session, settings = self.controller.session, self.controller.settings
        if session is None:
            return "Learns from the slices you label."
        book = session.labels
        learnt = {index for done in session.history for index in done.labelled}
        new = [index for index in book.labelled if index not in learnt]
        if not book.labelled:
            return "Nothing is labelled yet."
        if self.controller.scheduler and self.pace.train is None:
            return "How long it takes on the scheduler's worker shows in the first training."
        seconds = estimate(
            settings,
            self.controller.encoder_in_use or self.controller.encoder_expected,
            len(new),
            len(book.open_slices),
            kind=session.study.kind,
            classes=len(book.classes),
            warm=session.is_trained,
            pace=self.pace,
        )
        rough = "" if self.pace.train is not None else ", to be measured in the first training"
        return f"Training and prediction: {in_words(seconds)}{rough}."

    def _settings_changed(self) -> None:
        place = (self.controller.device, self.controller.scheduler)
        if place != self._place:
            self._place = place
            self.pace.forget()
        show_settings(self.form, self.controller.settings)

    def _set(self, name: str, value: Any) -> None:
        if getattr(self.controller.settings, name) != value:
            self.pace.forget()
            self.controller.change_settings(**{name: value})

    # --- work -------------------------------------------------------------------------------------------------------

    def _on_session(self) -> None:
        self.curve.hide()  # it is of the study before

    def _on_start(self, name: str) -> None:
        first = "Asking the scheduler…" if self.controller.scheduler else "Loading the encoder…"
        self.doing.setText(f"{name}…" if name != TRAINING else first)
        self.doing.show()
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.show()
        self._stage = None
        self.refresh()

    def _on_progress(self, event: Progress) -> None:
        if event.stage == "train" and (self._stage != "train" or not self.curve.steps):
            self.curve.start(event.total)
            self.curve.show()
        self._stage = event.stage
        if event.loss is not None:
            self.curve.add(event.done, event.loss)
        if event.done and event.elapsed > 0.5 and event.stage != "send":
            setattr(self.pace, event.stage, event.elapsed / event.done)
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
        doing = _DOING[event.stage].format(event.done, event.total).capitalize()
        left = f"; {in_words(event.remaining)} left" if event.done > 1 and event.remaining > 1 else ""
        self.doing.setText(f"{doing}{left}.")

    def _on_end(self) -> None:
        self.doing.hide()
        self.bar.hide()
