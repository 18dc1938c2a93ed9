"""Training: preset, what the model sees, how long it takes, the loss. Train and Stop are in the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import pyqtgraph
from annotated_types import Ge, Gt, Le, Lt
from magicgui.widgets import Container, create_widget
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QFormLayout, QSizePolicy, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.widgets import (
    WINDOWS,
    Collapsible,
    background_colour,
    button,
    choice,
    follow_theme,
    is_dark,
    quietly,
    sentence,
    show_window,
    text_colour,
)
from napari_dinoaugseg.learning.events import Progress, Stage
from napari_dinoaugseg.learning.settings import PRESETS, Settings

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.gui.panel import Head

# Seconds on two server cores at 256 pixels (docs/performance.md): a slice through efficientnet-lite0, one training step
# with a decoder of 64 channels and full convolutions on 4 slices, the prediction of one slice with its encoding.
_ENCODE, _STEP, _PREDICT = 0.022, 0.45, 0.035
_LEAN = 0.6  # of that, with the other kinds of blocks
_SIDES = 3  # pictures of one structure are seen from two sides, or four where they are coloured
_SLOWER = {"tiny": 14.0, "small": 23.0, "base": 45.0, "large": 90.0}  # encoders against efficientnet-lite0
_ENOUGH = 0.5  # seconds of a stage after which its pace is trusted

_STAGES: tuple[Stage, ...] = ("encode", "train", "predict")


@dataclass(frozen=True)
class Job:
    """What there is to do until masks are on every slice.

    Attributes:
        units: how many of each stage: slices and views to encode, steps, slices to predict.
        seconds: what one unit takes by the table.
    """

    units: Mapping[Stage, float]
    seconds: Mapping[Stage, float]


def job(
    settings: Settings, encoder: str | None, new: int, to_predict: int, *, kind: str, classes: int, warm: bool
) -> Job:
    """What a training with the prediction after it comes to.

    Args:
        settings: how to learn.
        encoder: its name where known.
        new: labelled slices that were not learnt from before; their views have to be encoded.
        to_predict: slices that get masks.
        kind: of the case, "volume" or "pictures".
        classes: how many, without the background; more take more steps.
        warm: whether a trained model is continued.
    """
    area = (settings.input_size / 256) ** 2
    heavier = next((factor for name, factor in _SLOWER.items() if encoder and encoder.endswith(name)), 1.0)
    blocks = 1.0 if settings.blocks == "conv" else _LEAN
    sides = _SIDES if kind == "pictures" and settings.mirrors and classes == 1 else 1
    steps = settings.planned_steps(classes + 1, new, warm=warm)
    views = min(new * (settings.views + 1), steps * settings.batch_size)  # no more than the steps can show
    return Job(
        units={"encode": views, "train": steps, "predict": to_predict},
        seconds={
            "encode": _ENCODE * area * heavier,
            "train": _STEP * blocks * area * (settings.width or 256) / 64 * settings.batch_size / 4,
            "predict": _PREDICT * area * max(1.0, heavier / 2) * sides,
        },
    )


@dataclass
class Pace:
    """What this machine has shown with the settings at hand.

    Attributes:
        measured: seconds for one unit of a stage, the one measured last at the end.
    """

    measured: dict[Stage, float] = field(default_factory=dict)
    _first: Progress | None = None  # the first unit of the running stage: it takes longer, for memory is prepared

    @property
    def is_known(self) -> bool:
        """Whether a training was measured, which takes most of the time."""
        return "train" in self.measured

    def forget(self) -> None:
        """Other settings have another pace."""
        self.measured.clear()
        self._first = None

    def note(self, event: Progress) -> None:
        """Learn from the progress of running work."""
        if event.stage not in _STAGES or not event.done:
            return
        first = self._first
        if first is None or first.stage != event.stage or first.done >= event.done:
            self._first = event
        elif event.elapsed - first.elapsed > _ENOUGH:
            self.measured.pop(event.stage, None)
            self.measured[event.stage] = (event.elapsed - first.elapsed) / (event.done - first.done)

    def seconds(self, job: Job, stages: tuple[Stage, ...] = _STAGES) -> float:
        """How long stages of a job take.

        A stage that was not measured takes its time in the table, times how much slower (or faster) than the table this
        machine was in the stage that was measured last.
        """
        last = next(reversed(self.measured), None)
        slower = self.measured[last] / job.seconds[last] if last is not None else 1.0
        pace = {stage: self.measured.get(stage, job.seconds[stage] * slower) for stage in stages}
        return sum(job.units[stage] * pace[stage] for stage in stages)

    def left(self, job: Job, event: Progress) -> float | None:
        """Seconds until all of a job is done; None while too little was measured.

        The pace of encoding predicts little about the training steps, which take most of the time.
        """
        if event.stage not in self.measured:
            return None
        later = _STAGES[_STAGES.index(event.stage) + 1 :]
        if "train" in later and not self.is_known:
            return None
        return (event.total - event.done) * self.measured[event.stage] + self.seconds(job, later)


def duration_in_words(seconds: float) -> str:
    """A duration in words, rounded to what the estimate is good for."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


# A form for the settings, made by magicgui from the settings object: names, ranges and help come from there.


SHOWN = {
    "input_size": "Input size (pixels)",
    "steps": "Training steps",
    "views": "Augmented views",
    "batch_size": "Slices per step",
    "learning_rate": "Learning rate",
    "augment_probability": "WT-Aug: how often",
    "augment_drop": "WT-Aug: share dropped",
    "precision": "Precision",
    "seed": "Seed",
}
"""What the form offers, in its words; the presets decide the rest."""


def settings_form(settings: Settings, changed: Callable[[str, Any], None]) -> Container[Any]:
    """A form of the settings in SHOWN.

    Args:
        settings: the values to begin with.
        changed: called with the name of a setting and its new value.
    """
    widgets = []
    for name, label in SHOWN.items():
        field = Settings.model_fields[name]
        widget: Any = create_widget(
            value=getattr(settings, name),
            annotation=field.annotation,
            name=name,
            label=label,
            options={"tooltip": field.description or "", **_range(name)},
        )
        widget.changed.connect(lambda value, name=name: changed(name, value))
        widgets.append(widget)
    return Container(widgets=widgets, labels=True)


def show_settings(form: Container[Any], settings: Settings) -> None:
    """Put other values into a form, without a word to anyone."""
    for name in SHOWN:
        widget: Any = form[name]
        with widget.changed.blocked():
            widget.value = getattr(settings, name)


def _range(name: str) -> dict[str, float]:
    """Limits and step of a number, from the settings object; nothing for a choice between names."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return {}
    options: dict[str, float] = {}
    whole = field.annotation is int or int in get_args(field.annotation)
    for bound in field.metadata:
        if isinstance(bound, Ge | Gt):
            options["min"] = bound.ge if isinstance(bound, Ge) else 0.0  # type: ignore[assignment]
        elif isinstance(bound, Le | Lt):
            options["max"] = bound.le if isinstance(bound, Le) else bound.lt  # type: ignore[assignment]
    options["step"] = 32 if name == "input_size" else 1 if whole else 0.0001 if name == "learning_rate" else 0.05
    return options


# The training loss, live.


_HEIGHT = 100
_LINE = {True: "#56b4e9", False: "#0072b2"}  # on dark, on light: both colour-blind safe
_PAUSE = 100  # ms between redraws: drawing must not take the time of the brush


class LossCurve(pyqtgraph.PlotWidget):  # type: ignore[misc]
    """Loss over steps of the training that goes on or went on last."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent, background=None)
        self._viewer = viewer
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMenuEnabled(False)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setToolTip("How far the model is from your labels while it learns: lower is better")
        self.setLabel("left", "loss")
        self.setLabel("bottom", "step")
        self.getAxis("left").enableAutoSIPrefix(False)
        self.steps: list[int] = []
        self.losses: list[float] = []
        self._line = self.plot()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._draw)
        follow_theme(viewer, self, self._show_colours)

    def start(self, total: int) -> None:
        """Begin a new curve of ``total`` steps."""
        self.steps.clear()
        self.losses.clear()
        self.setXRange(0, max(1, total), padding=0.02)
        self._draw()

    def add(self, step: int, loss: float) -> None:
        """Add a point."""
        self.steps.append(step)
        self.losses.append(loss)
        if not self._timer.isActive():
            self._timer.start(_PAUSE)

    def _show_colours(self) -> None:
        self.setBackground(background_colour(self._viewer))
        colour = text_colour(self._viewer)
        for side in ("left", "bottom"):
            axis = self.getAxis(side)
            axis.setPen(colour)
            axis.setTextPen(colour)
        self._line.setPen(pyqtgraph.mkPen(_LINE[is_dark(self._viewer)], width=2))

    def _draw(self) -> None:
        self._line.setData(self.steps, self.losses)
        if self.losses:
            top = max(self.losses) * 1.05
            self.setYRange(0, top, padding=0)
            self.getAxis("left").setTicks([[(0, "0"), (top / 2, f"{top / 2:.1f}"), (top, "")]])


# Training: preset, what the model sees, how long it will take, the loss. Train and Stop are in the head.


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
        self._stage: tuple[int, str] | None = None  # which work, and how far it was
        self.preset = QComboBox()
        self.preset.addItems(list(PRESETS))
        self.preset.setToolTip("\n".join(_HELP[name] for name in PRESETS))
        self.preset.activated.connect(self._choose_preset)
        self.window_choice = choice(
            [*WINDOWS, _AS_IN_VIEW],
            "Which grey values the model sees. Until the first training it sees what you see; then it keeps its "
            "window, whatever you look through",
        )
        self.window_choice.activated.connect(self._choose_window)
        self.from_scratch = sentence()
        self.from_scratch.setObjectName("from_scratch")
        self.predict_button = button("Predict", "Predict again with what was learnt", controller.jobs.predict)
        self.lost = sentence("The scheduler cannot be used now; why is said above. What you painted is safe.")
        self.here_button = button(
            "Go on with this computer", "Compute here instead; the same work begins again", controller.jobs.compute_here
        )
        self.estimate_text = sentence()
        self.curve = LossCurve(controller.viewer)
        self.form = settings_form(controller.setup.settings, self._set)
        self.more = Collapsible("More settings", self.form.native, opened=False)
        self._arrange()
        controller.changed.connect(self._on_change)
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

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self.curve.hide()  # it is of the case before
        if what & Change.SETTINGS:
            show_settings(self.form, self.controller.setup.settings)
        if what & (Change.SESSION | Change.LABELS | Change.SETTINGS | Change.WINDOW | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Show what can be done, and how long it would take."""
        controller = self.controller
        session, busy = controller.session, controller.jobs.busy
        self.predict_button.setEnabled(session is not None and session.is_trained and not busy)
        self.preset.setEnabled(not busy)
        self.form.native.setEnabled(not busy)
        quietly(self.preset, lambda: self.preset.setCurrentText(controller.setup.settings.preset))
        for widget in (self.lost, self.here_button):
            widget.setVisible(bool(controller.jobs.interrupted) and not busy)
        self.estimate_text.setVisible(not busy)
        self.estimate_text.setText(self._estimate())

        show_window(self.window_choice, controller.setup.settings.window)
        is_grey = session is not None and not session.case.is_colour
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
        if self.controller.setup.scheduler and not pace.is_known:
            return "How long it takes on the scheduler's worker shows in the first training."
        rough = "" if pace.is_known else " on a small server; the first steps show how long it takes here"
        return f"Training and prediction: {duration_in_words(pace.seconds(job))}{rough}."

    def _choose_preset(self, *_: object) -> None:
        self.controller.setup.use_preset(self.preset.currentText())

    def _choose_window(self) -> None:
        chosen = self.window_choice.currentText()
        if chosen == _AS_IN_VIEW:
            chosen = self.controller.view.window
        self.controller.setup.change(window=chosen)
        self.refresh()

    def _set(self, name: str, value: Any) -> None:
        if getattr(self.controller.setup.settings, name) != value:
            self.controller.setup.change(**{name: value})

    # --- work -------------------------------------------------------------------------------------------------------

    def _on_progress(self, event: Progress) -> None:
        stage = (self.controller.jobs.count, event.stage)
        if event.stage == "train" and (self._stage != stage or not self.curve.steps):
            self.curve.start(event.total)
            self.curve.show()
        self._stage = stage
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
