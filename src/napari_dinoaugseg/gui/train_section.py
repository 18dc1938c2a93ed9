"""Training: an estimate of its time, the head with Train and Stop, the settings, the loss curve, and the section."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from magicgui.widgets import Container, create_widget
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QProgressBar, QSizePolicy, QWidget

from napari_dinoaugseg.gui.core import Change
from napari_dinoaugseg.gui.jobs import PREDICTING, TRAINING
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.widgets import (
    WINDOWS,
    Chart,
    Collapsible,
    button,
    choice,
    column,
    quietly,
    row,
    sentence,
    show_window,
    single_shot,
)
from napari_dinoaugseg.gui.words import counted, noun_of
from napari_dinoaugseg.learning.events import Progress, Stage
from napari_dinoaugseg.learning.settings import PRESETS, Settings, frozen_steps

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

# Seconds on two server cores at 256 pixels (docs/performance.md): encoding a slice with efficientnet-lite0, a training
# step with a decoder of 64 channels and full convolutions on 4 slices, predicting a slice including its encoding.
_ENCODE, _STEP, _PREDICT = 0.022, 0.45, 0.035
_LEAN = 0.6  # share of that with the other kinds of blocks
_LEARNS = 3.5  # a step in which the encoder learns encodes its slices, and takes two and a half times as long to learn
_SIDES = 3  # test-time augmentation of pictures of one structure: two mirrored views, or four if they are coloured
SLOWER = {"tiny": 14.0, "small": 23.0, "base": 45.0, "large": 90.0}  # encoders relative to efficientnet-lite0, on a CPU
_ENOUGH = 0.5  # seconds of a stage after which its pace is reliable
_BAR_PAUSE = 0.08  # seconds between two updates of the progress bar
_DRAW_PAUSE = 100  # ms between two updates of the loss curve, so that painting stays smooth

_STAGES: tuple[Stage, ...] = ("encode", "train", "adapt", "predict")


@dataclass(frozen=True)
class Job:
    """The work of a training and the prediction after it.

    Attributes:
        units: how many of each stage: slices and views to encode, steps, slices to predict.
        seconds: of one unit, according to the table above.
    """

    units: Mapping[Stage, float]
    seconds: Mapping[Stage, float]


def job(
    settings: Settings, encoder: str | None, new: int, to_predict: int, *, kind: str, classes: int, warm: bool
) -> Job:
    """The work of a training and the prediction after it.

    Args:
        settings: of the training.
        encoder: its name, if known.
        new: labelled slices that no training has used yet; their views have to be encoded.
        to_predict: the number of slices to predict.
        kind: of the case, "volume" or "pictures".
        classes: their number without the background; more classes take more steps.
        warm: whether a trained model is continued.
    """
    area = (settings.input_size / 256) ** 2
    heavier = next((factor for name, factor in SLOWER.items() if encoder and encoder.endswith(name)), 1.0)
    blocks = 1.0 if settings.blocks == "conv" else _LEAN
    sides = _SIDES if kind == "pictures" and settings.mirrors and classes == 1 else 1
    steps = settings.planned_steps(classes + 1, new, warm=warm)
    frozen = frozen_steps(settings, steps, warm=warm)
    views = min(new * (settings.views + 1), frozen * settings.batch_size)  # no more than the steps use
    encode = _ENCODE * area * heavier
    step = _STEP * blocks * area * (settings.width or 256) / 64 * settings.batch_size / 4
    return Job(
        units={"encode": views, "train": frozen, "adapt": steps - frozen, "predict": to_predict},
        seconds={
            "encode": encode,
            "train": step,
            "adapt": step + _LEARNS * encode * settings.batch_size,
            "predict": _PREDICT * area * max(1.0, heavier / 2) * sides,
        },
    )


@dataclass
class Pace:
    """The measured pace of this machine with the current settings.

    Attributes:
        measured: seconds for one unit of a stage; the stage measured last is at the end.
    """

    measured: dict[Stage, float] = field(default_factory=dict)
    _first: Progress | None = None  # the first unit of the running stage, which takes longer

    @property
    def is_known(self) -> bool:
        """Whether training, which takes most of the time, was measured."""
        return "train" in self.measured or "adapt" in self.measured

    def forget(self) -> None:
        """Discard the measurements after a change of settings."""
        self.measured.clear()
        self._first = None

    def note(self, event: Progress) -> None:
        """Measure from the progress of a running job."""
        if event.stage not in _STAGES or not event.done:
            return
        first = self._first
        if first is None or first.stage != event.stage or first.done >= event.done:
            self._first = event
        elif event.elapsed - first.elapsed > _ENOUGH:
            self.measured.pop(event.stage, None)
            self.measured[event.stage] = (event.elapsed - first.elapsed) / (event.done - first.done)

    def seconds(self, job: Job, stages: tuple[Stage, ...] = _STAGES) -> float:
        """The estimated seconds of stages of a job.

        For a stage that was not measured, the time in the table is scaled by how much slower (or faster) than the table
        this machine was in the stage measured last.
        """
        last = next(reversed(self.measured), None)
        slower = self.measured[last] / job.seconds[last] if last is not None else 1.0
        pace = {stage: self.measured.get(stage, job.seconds[stage] * slower) for stage in stages}
        return sum(job.units[stage] * pace[stage] for stage in stages)

    def left(self, job: Job, event: Progress) -> float | None:
        """The seconds until a job is done; None while too little was measured.

        Training has to be measured first, because the pace of encoding hardly predicts that of the training steps.
        """
        if event.stage not in self.measured:
            return None
        later = _STAGES[_STAGES.index(event.stage) + 1 :]
        if "train" in later and not self.is_known:
            return None
        return (event.total - event.done) * self.measured[event.stage] + self.seconds(job, later)


def duration_in_words(seconds: float) -> str:
    """A duration in words, rounded to the accuracy of the estimate."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


class Head(QWidget):
    """The head of the panel, always visible: the name of the case, Train, Stop, and the progress of the work.

    Attributes:
        pace: of this machine; the Train section estimates with it.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.pace = Pace()
        self._job: Job | None = None
        self._shown = 0.0
        self._work = 0  # the number of the job that is shown
        self._made_for = self._conditions()
        self.name = sentence()  # placed at the top of the panel
        self.name.setObjectName("name")
        self.name.setStyleSheet("#name { font-weight: bold; font-size: 15px; }")
        self.train_button = button(
            "Train", tooltip("Learn from the labelled slices, then predict the others", "train"), controller.jobs.train
        )
        self.stop_button = button(
            "Stop", tooltip("Stop at the next step; results so far are kept", "train"), controller.jobs.stop
        )
        self.live_box = QCheckBox("Live")
        self.live_box.setToolTip("Learn while you paint: masks appear on the other slices, and follow your corrections")
        self.live_box.toggled.connect(controller.live.switch)
        self.live_text = sentence()
        self.doing = sentence()
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setFixedHeight(16)
        buttons = row(self.train_button, self.stop_button, self.live_box, stretch=0)
        column(self, buttons, self.live_text, self.doing, self.bar, margins=(0, 0, 0, 0))
        self.doing.hide()
        self.bar.hide()
        controller.changed.connect(self._on_change)
        controller.progressed.connect(self._on_progress)
        self.refresh()
        self._show_live()

    def _on_change(self, what: Change) -> None:
        if what & Change.SETTINGS:
            self._check_pace()
        if what & Change.WORK:
            self._follow_work()
        if what & (Change.SESSION | Change.SETTINGS | Change.WORK | Change.PROJECT):
            self.refresh()
        if what & (Change.SESSION | Change.WORK | Change.LIVE | Change.LABELS):
            self._show_live()

    def refresh(self) -> None:
        """Show the name of the case and of its project, and enable the buttons."""
        session, busy = self.controller.session, self.controller.jobs.busy
        for widget in (self.train_button, self.live_box):
            widget.setVisible(session is not None)
        self.stop_button.setVisible(session is not None or busy)
        self.train_button.setEnabled(session is not None and not busy and not self.controller.read_only)
        self.stop_button.setEnabled(busy)
        place = self.controller.project.place
        if session is None:
            state = "" if busy else "No case is open"  # while one is opened, its first slice may be in view
            self.name.setText("\n".join(filter(None, [state, place])))
            return
        case, held = session.case, self.controller.project.held
        name = held[1].name if held is not None else case.name
        self.name.setText("\n".join(filter(None, [f"{name} ({counted(case.n_slices, noun_of(case))})", place])))
        self.name.setToolTip(str(case.path))

    def _show_live(self) -> None:
        """Show what live learning does."""
        live = self.controller.live
        quietly(self.live_box, lambda: self.live_box.setChecked(live.is_on))
        self.live_text.setText(live.words)
        self.live_text.setVisible(bool(live.words) and not self.controller.jobs.busy)

    def job(self) -> Job | None:
        """The work of a training started now; None while nothing is labelled."""
        controller = self.controller
        session = controller.session
        if session is None or not (session.labels.labelled or controller.project.labelled_elsewhere):
            return None
        warm = session.is_trained and not session.changes_since_training()
        return job(
            controller.setup.settings,
            controller.setup.encoder_in_use or controller.setup.encoder_expected,
            self._new_slices(session, warm=warm),
            len(session.labels.open_slices),
            kind=session.case.kind,
            classes=len(session.labels.classes),
            warm=warm,
        )

    def _new_slices(self, session: Session, *, warm: bool) -> int:
        """Labelled slices, of all cases of a project, that the model which is continued has not learnt from."""
        work = self.controller.project
        if work.held is not None:
            elsewhere = sum(len(slices) for slices in work.labelled_elsewhere.values())
            return work.unlearnt if warm else len(session.labels.labelled) + elsewhere
        learnt = {index for done in session.history for index in done.labelled} if warm else set()
        return len([index for index in session.labels.labelled if index not in learnt])

    def _conditions(self) -> object:
        """Everything that the pace depends on."""
        setup = self.controller.setup
        settings = setup.settings.model_dump(exclude={"seed", "steps", "preset", "window"})
        return setup.device, setup.scheduler, tuple(settings.items())

    def _check_pace(self) -> None:
        conditions = self._conditions()
        if conditions != self._made_for:
            self._made_for = conditions
            self.pace.forget()

    def _follow_work(self) -> None:
        """Show that a job has begun or ended."""
        jobs = self.controller.jobs
        if not jobs.busy:
            self.doing.hide()
            self.bar.hide()
        elif self._work != jobs.count:
            self._work = jobs.count
            self._begin(jobs.name)

    def _begin(self, name: str) -> None:
        first = "Asking the scheduler…" if self.controller.setup.scheduler else "Loading the encoder…"
        self.doing.setText(f"{name}…" if name != TRAINING else first)
        self.doing.show()
        self.bar.setRange(0, 0)
        self.bar.setFormat("")
        self.bar.show()
        if name == TRAINING or (name == PREDICTING and self._job is None):
            self._job = self.job()

    def _on_progress(self, event: Progress) -> None:
        self._follow_work()
        self._check_pace()
        self.pace.note(event)
        now = time.monotonic()
        if now - self._shown < _BAR_PAUSE and event.done < event.total:
            return
        self._shown = now
        self.bar.setRange(0, max(1, event.total))
        self.bar.setValue(event.done)
        self.bar.setFormat("%p %")
        if self.controller.jobs.stopping:
            self.doing.setText("Stopping…")
            return
        doing = event.words.capitalize()
        left = self.pace.left(self._job, event) if self._job is not None else None
        words = f"; {duration_in_words(left)} left in all" if left is not None and left > 1 else ""
        self.doing.setText(f"{doing}{words}.")


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
"""The settings in the form and their labels; the presets determine the rest."""


def settings_form(settings: Settings, changed: Callable[[str, Any], None]) -> Container[Any]:
    """A form of the settings in SHOWN; their types, ranges and tooltips come from the fields of `Settings`.

    Args:
        settings: the initial values.
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
    """Set the values of a form without emitting signals."""
    for name in SHOWN:
        widget: Any = form[name]
        with widget.changed.blocked():
            widget.value = getattr(settings, name)


def _range(name: str) -> dict[str, float]:
    """The range and step of a numeric setting; empty for a choice between names."""
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


class LossCurve(Chart):
    """The loss over the steps of the current or last training."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 100, ("#56b4e9", "#0072b2"))  # distinct for colour-blind people
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("How far the model is from your labels during training: lower is better")
        self.setLabel("left", "loss")
        self.setLabel("bottom", "step")
        self.getAxis("left").enableAutoSIPrefix(False)
        self.steps: list[int] = []
        self.losses: list[float] = []
        self._timer = single_shot(self._draw, self)

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
            self._timer.start(_DRAW_PAUSE)

    def _draw(self) -> None:
        self.line.setData(self.steps, self.losses)
        if self.losses:
            top = max(self.losses) * 1.05
            self.setYRange(0, top, padding=0)
            middle = float(f"{top / 2:.1g}")  # the loss may be anything between 0.01 and 5
            self.getAxis("left").setTicks([[(0, "0"), (middle, f"{middle:g}"), (top, "")]])


_HELP = {
    "fast": "fast: a first look in little time",
    "balanced": "balanced: good masks in a minute or two on a small machine",
    "adapt": "adapt: the encoder learns, too: mostly better masks of pictures, in twice the time",
    "paper": "paper: the authors' recipe, 768 pixels and 2000 steps, each slice scaled by itself; for a GPU",
}
_AS_IN_VIEW = "as in view"
_WORDS = {
    "input_size": "the input size",
    "context": "the neighbouring slices",
    "window": "the window",
    "encoder": "the encoder",
    "adaptation": "the training of the encoder",
    "weights": "the file of encoder weights",
}


class TrainSection(QWidget):
    """The section "Train"."""

    def __init__(self, controller: Controller, head: Head) -> None:
        super().__init__()
        self.controller = controller
        self.head = head
        self._stage: tuple[int, str] | None = None  # the number of the job and its stage
        self.preset = QComboBox()
        self.preset.addItems(list(PRESETS))
        self.preset.setToolTip("\n".join(_HELP[name] for name in PRESETS))
        self.preset.activated.connect(self._choose_preset)
        self.window_choice = choice(
            [*WINDOWS, _AS_IN_VIEW],
            "The grey values that the model sees. Until the first training it uses the window of the view; then it "
            "keeps its own, whatever the view shows",
        )
        self.window_choice.activated.connect(self._choose_window)
        self.from_scratch = sentence()
        self.from_scratch.setObjectName("from_scratch")
        self.predict_button = button("Predict", "Predict again with what was learnt", controller.jobs.predict)
        self.lost = sentence("The scheduler cannot be used now; the reason is shown above. Your labels are safe.")
        self.here_button = button(
            "Continue on this computer", "Compute here instead; the work is restarted", controller.jobs.compute_here
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
        form = QFormLayout()
        form.setSpacing(4)
        form.addRow("Preset", self.preset)
        form.addRow("Model sees", self.window_choice)
        below = (self.predict_button, self.lost, self.here_button, self.estimate_text, self.curve, self.more)
        column(self, form, self.from_scratch, *below)
        self.curve.hide()

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self.curve.hide()  # belongs to the previous case
        if what & Change.SETTINGS:
            show_settings(self.form, self.controller.setup.settings)
        if what & (Change.SESSION | Change.LABELS | Change.SETTINGS | Change.WINDOW | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Enable the controls, and show how long a training would take."""
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
            return "How long it takes on the scheduler's worker is measured in the first training."
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
        if event.stage in ("train", "adapt") and (self._stage != stage or not self.curve.steps):
            self.curve.start(event.total)
            self.curve.show()
        self._stage = stage
        if event.loss is not None:
            self.curve.add(event.done, event.loss)


def _starts_over(changed: list[str]) -> str:
    """The reason why the next training cannot continue the model."""
    words = [_WORDS[name] for name in changed if name in _WORDS]
    if len(words) < len(changed):
        words.append("the decoder of the preset")
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return (
        f"The next training starts from scratch: {listed} changed. The trained model stays in use until then; "
        "set it back to continue the model."
    )
