"""The panel: what to do next, which case this is, Train and Stop, questions, messages, and the sections below."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QPlainTextEdit,
    QProgressBar,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.gui.case_section import CaseSection
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.core import Change, Message
from napari_dinoaugseg.gui.export_section import ExportSection
from napari_dinoaugseg.gui.jobs import PREDICTING, TRAINING
from napari_dinoaugseg.gui.keys import bind_keys, show_help, tooltip, unbind_keys
from napari_dinoaugseg.gui.label_section import ClassesSection, LabelSection
from napari_dinoaugseg.gui.review_section import ReviewSection
from napari_dinoaugseg.gui.saving import describe, when
from napari_dinoaugseg.gui.train_section import Job, Pace, TrainSection, duration_in_words, job
from napari_dinoaugseg.gui.widgets import Collapsible, button, quietly, row, sentence
from napari_dinoaugseg.learning.events import Progress
from napari_dinoaugseg.session.labels import UNKNOWN

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session
    from napari_dinoaugseg.session.store import SavedSession

ENOUGH_TO_START = 3
"""Labelled slices from which a first training pays."""


def advice(controller: Controller) -> str:
    """The next step for the person."""
    session = controller.session
    if controller.jobs.busy:
        return "Stopping…" if controller.jobs.stopping else _while_busy(controller)
    if session is None:
        return "1. Open a case: a file, a folder, an image layer of this viewer, or the brain sample."
    if controller.layers is not None and controller.layers.manual is None:
        return "The labels layer was removed; nothing is lost. Press 'Bring layers back' in the Label section."
    if controller.guard is not None and controller.guard.reason:
        return controller.guard.reason
    if controller.read_only:
        return "Look at these labels and export them here; press 'Try again' when the other window is closed."
    if controller.jobs.interrupted:
        return "The scheduler was lost. Press 'Go on with this computer' in the Train section, or Train to try again."
    if controller.sessions.unanswered:
        return "Go on with your labels, or start anew: choose below."
    noun = "slice" if session.case.kind == "volume" else "picture"
    return _to_label(session, noun) or _after_training(controller, session, noun)


def _to_label(session: Session, noun: str) -> str | None:
    """What lacks before a first training; None when there was one."""
    book = session.labels
    labelled = book.labelled
    if not book.classes:
        return "Add a class for what you want to find."
    if session.is_trained and not labelled:
        return None  # a saved model
    if not labelled:
        names = " and ".join(f"'{entry.name}'" for entry in book.classes[:2]) + (" …" if len(book.classes) > 2 else "")
        return f"2. Paint {names} on one {noun} with the brush, then on two to four more, spread out. Then press Train."
    if not any(((book.truth(i) != 0) & (book.truth(i) != UNKNOWN)).any() for i in labelled):
        return f"Only background is labelled so far. Paint a class on at least one {noun}."
    if session.is_trained:
        return None
    count = f"{_several(len(labelled), noun)} labelled."
    if len(labelled) < min(ENOUGH_TO_START, session.case.n_slices):
        return f"{count} Paint {ENOUGH_TO_START} to 5, spread out ('Go to suggested' shows where), then press Train."
    return f"3. {count} Press Train."


def _after_training(controller: Controller, session: Session, noun: str) -> str:
    book = session.labels
    learnt = set(session.history[-1].labelled) if session.history else set()
    new = [i for i in book.labelled if i not in learnt]
    found = controller.view.suggestion()
    if found is None or not book.open_slices:
        return f"Every {noun} is labelled. Export the masks."
    if not book.confidence:
        return "Press Predict to see masks on the other slices."
    if new:
        return f"{_several(len(new), noun)} labelled since the last training. Press Train to learn from that too."
    name = session.case.slice_name(found.index)
    return f"4. Look at {name} ({found.reason}): accept it, or correct it and train again. Export when content."


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _while_busy(controller: Controller) -> str:
    if controller.jobs.name == TRAINING:
        return "Learning from your labels. Go on painting if you like: it counts in the next round."
    if controller.jobs.name == "Predicting":
        return "Masks appear as they come, nearest slices first. You can look and paint meanwhile."
    return f"{controller.jobs.name}…"


# The head of the panel, always in view: which case this is, Train, Stop, and how far the work is.


_BAR_PAUSE = 0.08  # seconds between two updates of the bar


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
        self._work = 0  # the number of the work that is shown
        self._made_for = self._conditions()
        self.name = sentence()  # the panel puts it above everything else
        self.name.setObjectName("name")
        self.name.setStyleSheet("#name { font-weight: bold; font-size: 15px; }")
        self.train_button = button(
            "Train", tooltip("Learn from the labelled slices, then predict the others", "train"), controller.jobs.train
        )
        self.stop_button = button(
            "Stop", tooltip("Stop at the next step; what is there stays", "train"), controller.jobs.stop
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
        controller.changed.connect(self._on_change)
        controller.progressed.connect(self._on_progress)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & Change.SETTINGS:
            self._check_pace()
        if what & Change.WORK:
            self._follow_work()
        if what & (Change.SESSION | Change.SETTINGS | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Show the name of the case, and what can be done."""
        session, busy = self.controller.session, self.controller.jobs.busy
        self.train_button.setEnabled(session is not None and not busy and not self.controller.read_only)
        self.stop_button.setEnabled(busy)
        if session is None:
            self.name.setText("No case is open")
            return
        count, noun = session.case.n_slices, "slice" if session.case.kind == "volume" else "picture"
        self.name.setText(f"{session.case.name} ({count} {noun}{'' if count == 1 else 's'})")
        self.name.setToolTip(str(session.case.path))

    def job(self) -> Job | None:
        """What a training now would come to; None while nothing is labelled."""
        controller = self.controller
        session = controller.session
        if session is None or not session.labels.labelled:
            return None
        warm = session.is_trained and not session.changes_since_training()
        learnt = {index for done in session.history for index in done.labelled} if warm else set()
        return job(
            controller.setup.settings,
            controller.setup.encoder_in_use or controller.setup.encoder_expected,
            len([index for index in session.labels.labelled if index not in learnt]),
            len(session.labels.open_slices),
            kind=session.case.kind,
            classes=len(session.labels.classes),
            warm=warm,
        )

    def _conditions(self) -> object:
        """All that the pace depends on."""
        controller = self.controller
        settings = controller.setup.settings.model_dump(exclude={"seed", "steps", "preset", "window"})
        return controller.setup.device, controller.setup.scheduler, tuple(settings.items())

    def _check_pace(self) -> None:
        conditions = self._conditions()
        if conditions != self._made_for:
            self._made_for = conditions
            self.pace.forget()

    def _follow_work(self) -> None:
        """Show that work has begun, or ended."""
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


# The question whether an image that came into the viewer is to be annotated.


class OfferBar(QFrame):
    """Shown when somebody dropped, opened or added an image; it is never annotated without a click."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setObjectName("offer_bar")
        self.setStyleSheet("#offer_bar { border: 2px solid #e69f00; border-radius: 4px; }")
        self.text = sentence()
        self.yes_button = button("Annotate", "Open it here; the case before is saved", controller.cases.take_offer)
        self.no_button = button("Not now", "Leave it in the viewer as it is", controller.cases.decline_offer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(row(self.yes_button, self.no_button))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.OFFER | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Ask, where there is something to ask."""
        layer = self.controller.cases.offer
        self.setVisible(layer is not None)
        self.yes_button.setEnabled(not self.controller.jobs.busy)
        if layer is not None:
            self.text.setText(f"Annotate {layer.name}?")


# The bar on top of the panel: saved labels to go on with, a session that another window writes, what was damaged.


_LIST_HEIGHT = 96  # pixels: some lines; the others by scrolling


class ResumeBar(QFrame):
    """Shown when there is something to choose or to know; nothing is chosen for the person."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setObjectName("resume_bar")
        # A frame and not a ground of its own: readable in either theme.
        self.setStyleSheet("#resume_bar { border: 2px solid #e69f00; border-radius: 4px; }")
        self.text = sentence()
        self.choice = QComboBox()
        self.choice.setToolTip("The saved labels of this case, the newest first")
        self.choice.setMinimumContentsLength(8)
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.choice.currentIndexChanged.connect(self._describe)
        self.problems = QPlainTextEdit()
        self.problems.setReadOnly(True)
        self.problems.setFixedHeight(_LIST_HEIGHT)
        self.go_on_button = button("Go on", "Bring these labels back and go on with them", self._go_on)
        self.anew_button = button(
            "Start anew",
            "Begin without labels. The saved ones stay on disk, and are offered again when the case is next opened",
            controller.sessions.start_anew,
        )
        self.again_button = button(
            "Try again", "Go on here, when the other window has been closed", controller.sessions.try_again
        )
        self.read_button = button("I have read this", "Close this list", controller.sessions.problems_are_read)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)
        for widget in (self.text, self.choice, self.problems):
            layout.addWidget(widget)
        layout.addLayout(row(self.go_on_button, self.again_button, self.anew_button, self.read_button))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.SAVED_SESSIONS | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Show what there is to choose or to know."""
        sessions, read_only = self.controller.sessions, self.controller.read_only
        offers = [] if read_only else sessions.offers
        problems = sessions.problems
        self.setVisible(bool(offers or read_only or problems))
        self.choice.setVisible(len(offers) > 1 and not problems)
        self.problems.setVisible(bool(problems))
        self.go_on_button.setVisible(bool(offers) and not problems)
        self.again_button.setVisible(bool(read_only) and not problems)
        self.anew_button.setVisible(bool(offers or read_only) and not problems)
        self.read_button.setVisible(bool(problems))
        for widget in (self.go_on_button, self.again_button, self.anew_button, self.choice):
            widget.setEnabled(not self.controller.jobs.busy)
        if problems:
            self.text.setText("Your labels are back, but not all of them could be read:")
            self.problems.setPlainText("\n".join(problems))
        elif read_only:
            self.text.setText(read_only)
        elif offers:
            self._list(offers)

    def _list(self, offers: list[SavedSession]) -> None:
        lines = [f"{when(saved)}" for saved in offers]
        if lines != [self.choice.itemText(line) for line in range(self.choice.count())]:
            quietly(self.choice, self.choice.clear)
            quietly(self.choice, lambda: self.choice.addItems(lines))
        self._describe()

    def _describe(self, *_: object) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.text.setText(describe(chosen, self._noun()))

    def _noun(self) -> str:
        session = self.controller.session
        return "picture" if session is not None and session.case.kind == "pictures" else "slice"

    def _chosen(self) -> SavedSession | None:
        offers = self.controller.sessions.offers
        return offers[min(max(0, self.choice.currentIndex()), len(offers) - 1)] if offers else None

    def _go_on(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.controller.sessions.go_on(chosen)


# The panel puts together a status line with the next step, and the sections.


_UNFOLDING = 60  # ms until a section that unfolds has its height
_READ = 15_000  # ms that a message stays
_TOGETHER = 1.0  # seconds within which notices are read as one message
# Dark red on its own light ground: readable in either theme.
# napari's own style sheet draws a disabled button almost as an enabled one.
_DISABLED = """
QPushButton:disabled, QToolButton:disabled {
    background-color: transparent; color: rgba(128, 128, 128, 160); border: 1px solid rgba(128, 128, 128, 90);
}
"""
_ALARM = "background-color: #fbe3dc; color: #7a1f00; padding: 4px; border-radius: 3px;"


class Panel(QWidget):
    """The dock widget."""

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        viewer = napari_viewer  # napari hands it over by this name
        self.controller = Controller.of(viewer)
        self.controller.users += 1
        self._reviewed = False
        self._noted = -_TOGETHER  # when the last notice came
        self._slice: int | None = None  # the slice that the message is about; None = not about one
        self.advice = sentence()
        self.advice.setObjectName("advice")
        self.advice.setStyleSheet("font-weight: bold;")
        self.encoder = sentence()
        self.saved = sentence()
        self.saved.setObjectName("saved")
        self.message = sentence()
        self.message.hide()
        self.help_button = QToolButton()
        self.help_button.setText("?")
        self.help_button.setToolTip(tooltip("Keys", "help"))
        self.help_button.clicked.connect(self._help)
        controller = self.controller
        self.head = Head(controller)
        self.offer = OfferBar(controller)
        self.resume = ResumeBar(controller)
        self.case = CaseSection(controller)
        self.classes = ClassesSection(controller)
        self.label = LabelSection(controller)
        self.train = TrainSection(controller, self.head)
        self.review = ReviewSection(controller)
        self.export = ExportSection(controller)
        self.folds = {
            title: Collapsible(title, section, opened=opened)
            for title, section, opened in (
                ("Case", self.case, True),
                ("Classes", self.classes, True),
                ("Label", self.label, True),
                ("Train", self.train, True),
                ("Review", self.review, False),
                ("Export", self.export, False),
            )
        }
        self.setStyleSheet(_DISABLED)
        self._arrange()
        self._fade = QTimer(self)
        self._fade.setSingleShot(True)
        self._fade.timeout.connect(self.message.hide)
        controller.changed.connect(self._on_change)
        controller.notified.connect(self._on_message)
        bind_keys(viewer, controller)
        # A closed dock or viewer takes the widgets away while work may still go on.
        self.destroyed.connect(_Leaving(viewer, controller, [self, *self.findChildren(QWidget)]))
        self.refresh()
        self._show_saving()

    def _arrange(self) -> None:
        inside = QWidget()
        sections = QVBoxLayout(inside)
        sections.setContentsMargins(0, 0, 0, 0)
        sections.setSpacing(2)
        for fold in self.folds.values():
            sections.addWidget(fold)
        sections.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        self.scroll_area = scroll
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)
        top = row(self.advice, self.help_button)
        top.setStretch(0, 1)
        layout.addWidget(self.head.name)
        layout.addLayout(top)
        layout.addWidget(self.offer)
        layout.addWidget(self.resume)
        layout.addWidget(self.head)
        layout.addWidget(self.message)
        layout.addWidget(self.encoder)
        layout.addWidget(scroll)
        layout.addWidget(self.saved)
        # Wide enough that the scroll bar never lies on what is inside.
        bar = scroll.verticalScrollBar()
        beside = bar.sizeHint().width() if bar is not None else 16
        self.setMinimumWidth(inside.minimumSizeHint().width() + beside + 12)

    # --- showing ----------------------------------------------------------------------------------------------------

    def _help(self) -> None:
        show_help(self.controller.viewer)

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self._show_case()
        if what & Change.PREDICTIONS:
            self._open_review()
        if what & Change.SAVING:
            self._show_saving()
        if what & Change.SLICE and self._slice not in (None, self.controller.current_slice):
            self._clear_message()
        if what & ~(Change.SELECTION | Change.SLICE | Change.TOOL | Change.WINDOW | Change.SAVING):
            self.refresh()

    def refresh(self) -> None:
        """Show what to do next, and which encoder is in use."""
        controller = self.controller
        self.advice.setText(advice(controller))
        for section in (self.classes, self.train):  # of what can only be looked at, nothing here is for looking
            section.setEnabled(not controller.read_only)
        if controller.setup.encoder_in_use is not None:
            self.encoder.setText(f"Encoder in use: {controller.setup.encoder_in_use}")
        elif controller.setup.encoder_expected is not None:
            self.encoder.setText(f"Encoder: {controller.setup.encoder_expected}")
        else:
            self.encoder.setText(f"Encoder: {controller.setup.settings.encoder}")

    def _show_saving(self) -> None:
        """Whether the labels are on disk, always at the same place."""
        saving = self.controller.saving
        self.saved.setText(saving.state)
        self.saved.setStyleSheet(_ALARM if saving.refused else "")
        self.saved.setVisible(bool(saving.state))

    def _show_case(self) -> None:
        self.folds["Case"].set_open(self.controller.session is None)
        self.folds["Review"].set_open(False)
        self._reviewed = False
        self.scroll_area.ensureVisible(0, 0)

    def _open_review(self) -> None:
        """Unfold the Review section when the first predictions of a case are there."""
        session = self.controller.session
        if session is not None and session.labels.confidence and not self._reviewed:
            self._reviewed = True
            self.folds["Review"].set_open(True)
            # Once: from here on the person decides what is in view.
            QTimer.singleShot(_UNFOLDING, self._show_review)

    def _show_review(self) -> None:
        if not self.controller.closed:
            self.scroll_area.ensureWidgetVisible(self.folds["Review"])

    def _on_message(self, message: Message) -> None:
        if message.kind == "clear":
            self._clear_message()
        elif message.kind == "notice":
            self._show_notice(message.text)
        else:
            self._show_message(message.text)
        if message.kind == "slice":
            self._slice = self.controller.current_slice
        elif message.kind == "error":
            self._fade.stop()  # an error stays until something else is done
            self.message.setStyleSheet(_ALARM)

    def _show_message(self, text: str) -> None:
        self._slice = None
        self.message.setStyleSheet("")
        self.message.setText(text)
        self.message.show()
        self._fade.start(_READ)

    def _show_notice(self, text: str) -> None:
        """Show a notice; those that come together are shown together."""
        now = time.monotonic()
        together = self.message.isVisible() and now - self._noted < _TOGETHER
        self._noted = now
        shown = self.message.text().split("\n") if together else []
        self._show_message("\n".join([*shown, *([text] if text not in shown else [])]))
        self._fade.start(_READ * (len(shown) + 1))

    def _clear_message(self) -> None:
        self._slice = None
        self.message.hide()


class _Leaving:
    """What happens when the panel is gone. No method of the panel: that would go with it."""

    def __init__(self, viewer: Any, controller: Controller, widgets: list[QWidget]) -> None:
        self.viewer, self.controller, self.widgets = viewer, controller, widgets

    def __call__(self, *_: object) -> None:
        if self.controller.users <= 1:
            unbind_keys(self.viewer)
        self.controller.release(self.widgets)
        self.widgets = []
