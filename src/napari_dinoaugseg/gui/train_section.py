"""Training: preset, what the model sees, how long it will take, the loss. Train and Stop are in the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QFormLayout, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.estimate import in_words
from napari_dinoaugseg.gui.loss_curve import LossCurve
from napari_dinoaugseg.gui.parts import Collapsible, button, choice, quietly, sentence
from napari_dinoaugseg.gui.settings_form import settings_form, show_settings
from napari_dinoaugseg.gui.windows import WINDOWS, show_window
from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.learning.settings import PRESETS

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.head import Head

_HELP = {
    "fast": "fast: a first look in little time",
    "balanced": "balanced: good masks in a minute or two on a small machine",
    "paper": "paper: the authors' recipe, 768 pixels and 2000 steps, each slice scaled by itself; for a GPU",
}
_AS_IN_VIEW = "as in view"
_WORDS = {
    "input_size": "the input size",
    "context": "the neighbouring slices",
    "window": "the window",
    "encoder": "the encoder",
    "weights": "the file of encoder weights",
}


class TrainSection(QWidget):
    """The section "Train"."""

    def __init__(self, controller: Controller, head: Head, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.head = head
        self._stage: str | None = None
        self.preset = QComboBox()
        self.preset.addItems(list(PRESETS))
        self.preset.setToolTip("\n".join(_HELP[name] for name in PRESETS))
        self.preset.activated.connect(lambda _: controller.use_preset(self.preset.currentText()))
        self.window_choice = choice(
            [*WINDOWS, _AS_IN_VIEW],
            "Which grey values the model sees. Until the first training it sees what you see; then it keeps its "
            "window, whatever you look through",
        )
        self.window_choice.activated.connect(self._choose_window)
        self.from_scratch = sentence()
        self.from_scratch.setObjectName("from_scratch")
        self.predict_button = button("Predict", "Predict again with what was learnt", controller.predict)
        self.lost = sentence("The scheduler cannot be used now; why is said above. What you painted is safe.")
        self.here_button = button(
            "Go on with this computer", "Compute here instead; the same work begins again", controller.compute_here
        )
        self.estimate_text = sentence()
        self.curve = LossCurve(controller.viewer)
        self.form = settings_form(controller.settings, self._set)
        self.more = Collapsible("More settings", self.form.native, opened=False)
        self._arrange()
        for signal in (
            controller.session_changed,
            controller.labels_changed,
            controller.settings_changed,
            controller.window_changed,
            controller.work_started,
            controller.work_finished,
            controller.interrupted_changed,
        ):
            signal.connect(self.refresh)
        controller.session_changed.connect(self._on_session)
        controller.settings_changed.connect(self._settings_changed)
        controller.work_started.connect(self._on_start)
        controller.progressed.connect(self._on_progress)
        self.refresh()

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.setSpacing(4)
        form = QFormLayout()
        form.setSpacing(4)
        form.addRow("Preset", self.preset)
        form.addRow("Model sees", self.window_choice)
        layout.addLayout(form)
        layout.addWidget(self.from_scratch)
        layout.addWidget(self.predict_button)
        layout.addWidget(self.lost)
        layout.addWidget(self.here_button)
        layout.addWidget(self.estimate_text)
        layout.addWidget(self.curve)
        layout.addWidget(self.more)
        self.curve.hide()

    # --- showing ----------------------------------------------------------------------------------------------------

    def refresh(self, *_: object) -> None:
        """Show what can be done, and how long it would take."""
        controller = self.controller
        session, busy = controller.session, controller.busy
        self.predict_button.setEnabled(session is not None and session.is_trained and not busy)
        self.preset.setEnabled(not busy)
        self.form.native.setEnabled(not busy)
        quietly(self.preset, lambda: self.preset.setCurrentText(controller.settings.preset))
        for widget in (self.lost, self.here_button):
            widget.setVisible(bool(controller.interrupted) and not busy)
        self.estimate_text.setVisible(not busy)
        self.estimate_text.setText(self._estimate())

        show_window(self.window_choice, controller.settings.window)
        is_grey = session is not None and not session.study.is_colour
        self.window_choice.setEnabled(is_grey and not busy)
        changed = session.changes_since_training() if session is not None else []
        self.from_scratch.setText(_starts_over(changed))
        self.from_scratch.setVisible(bool(changed) and not busy)

    def _estimate(self) -> str:
        if self.controller.session is None:
            return "Learns from the slices you label."
        job, pace = self.head.job(), self.head.pace
        if job is None:
            return "Nothing is labelled yet."
        if self.controller.scheduler and not pace.is_known:
            return "How long it takes on the scheduler's worker shows in the first training."
        rough = "" if pace.is_known else " on a small server; the first steps show how long it takes here"
        return f"Training and prediction: {in_words(pace.seconds(job))}{rough}."

    def _settings_changed(self) -> None:
        show_settings(self.form, self.controller.settings)

    def _choose_window(self) -> None:
        chosen = self.window_choice.currentText()
        if chosen == _AS_IN_VIEW:
            chosen = self.controller.view_window
        self.controller.change_settings(window=chosen)
        self.refresh()

    def _set(self, name: str, value: Any) -> None:
        if getattr(self.controller.settings, name) != value:
            self.controller.change_settings(**{name: value})

    # --- work -------------------------------------------------------------------------------------------------------

    def _on_session(self) -> None:
        self.curve.hide()  # it is of the study before

    def _on_start(self, _: str) -> None:
        self._stage = None

    def _on_progress(self, event: Progress) -> None:
        if event.stage == "train" and (self._stage != "train" or not self.curve.steps):
            self.curve.start(event.total)
            self.curve.show()
        self._stage = event.stage
        if event.loss is not None:
            self.curve.add(event.done, event.loss)


def _starts_over(changed: list[str]) -> str:
    """Why the next training cannot continue the model, in one sentence."""
    words = [_WORDS[name] for name in changed if name in _WORDS]
    if len(words) < len(changed):
        words.append("the decoder of the preset")
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return (
        f"The next training starts from scratch: {listed} changed. The trained model stays in use until then; "
        "set it back to continue the model."
    )
