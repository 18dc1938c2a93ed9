"""The panel: the next step, questions, messages, and the sections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFrame, QLayout, QPlainTextEdit, QScrollArea, QToolButton, QWidget

from napari_dinoaugseg.gui.canvas import steady_boxes
from napari_dinoaugseg.gui.case_section import CaseSection
from napari_dinoaugseg.gui.cases_section import CasesSection, CaseSteps
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.core import Change, Message
from napari_dinoaugseg.gui.display import prepare_layers
from napari_dinoaugseg.gui.export_section import ExportSection
from napari_dinoaugseg.gui.jobs import PREDICTING, TRAINING
from napari_dinoaugseg.gui.keys import bind_keys, show_help, tooltip, unbind_keys
from napari_dinoaugseg.gui.label_section import ClassesSection, LabelSection
from napari_dinoaugseg.gui.measure_section import MeasureSection
from napari_dinoaugseg.gui.review_section import ReviewSection
from napari_dinoaugseg.gui.saving import describe, when
from napari_dinoaugseg.gui.smart_box import smart_advice
from napari_dinoaugseg.gui.start import SampleBar, StartSection
from napari_dinoaugseg.gui.train_section import Head, TrainSection
from napari_dinoaugseg.gui.widgets import (
    FRAME,
    Collapsible,
    WheelScrolls,
    button,
    choice,
    column,
    quietly,
    row,
    sentence,
    single_shot,
)
from napari_dinoaugseg.gui.words import counted, in_words, noun_of, slice_name
from napari_dinoaugseg.native import collect_rarely
from napari_dinoaugseg.session.labels import UNKNOWN, LabelBook, Status

if TYPE_CHECKING:
    import napari

    from napari_dinoaugseg.session.session import Session
    from napari_dinoaugseg.session.store import SavedSession

_NEED_A_CASE = ("Classes", "Label", "Train", "Review", "Measure", "Export")
ENOUGH_TO_START = 3
"""Labelled slices from which a first training is worthwhile."""
_LIST_HEIGHT = 96  # pixels: a few lines, the rest by scrolling
_UNFOLDING = 60  # ms until an unfolded section has its final height
_PREPARING = 300  # ms after which the window has been drawn
_READ = 15_000  # ms that a message is shown
_TOGETHER = 1.0  # seconds within which notices are shown together

# Dark red on a light background of its own: readable in both themes.
_ALARM = "background-color: #fbe3dc; color: #7a1f00; padding: 4px; border-radius: 3px;"
# napari's own style sheet makes disabled buttons look almost enabled.
_DISABLED = """
QPushButton:disabled, QToolButton:disabled {
    background-color: transparent; color: rgba(128, 128, 128, 160); border: 1px solid rgba(128, 128, 128, 90);
}
"""


class Panel(QWidget):
    """The dock widget."""

    def __init__(self, napari_viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        viewer = napari_viewer  # napari passes it by this name
        self.controller = Controller.of(viewer)
        self.controller.users += 1
        self._reviewed = False
        self._project = ""  # the project that is shown
        self._noted = -_TOGETHER  # time of the last notice
        self._slice: int | None = None  # the slice that the message is about, if any
        self._erring = False  # whether the message is an error
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
        self.sample = SampleBar(controller)
        self.steps = CaseSteps(controller)
        self.cases = CasesSection(controller)
        self.case = CaseSection(controller)
        self.start = StartSection(
            controller,
            open_file=self.case.open_file,
            open_folder=self.case.open_folder,
            use_layer=self.case.use_layer,
        )
        self.classes = ClassesSection(controller)
        self.label = LabelSection(controller)
        self.train = TrainSection(controller, self.head)
        self.review = ReviewSection(controller)
        self.measure = MeasureSection(controller)
        self.export = ExportSection(controller)
        self.folds = {
            title: Collapsible(title, section, opened=opened)
            for title, section, opened in (
                ("Project", self.cases, True),
                ("Case", self.case, False),
                ("Classes", self.classes, True),
                ("Label", self.label, True),
                ("Train", self.train, True),
                ("Review", self.review, False),
                ("Measure", self.measure, False),
                ("Export", self.export, False),
            )
        }
        self.setStyleSheet(_DISABLED)
        self._arrange()
        self._fade = single_shot(self.message.hide, self)
        controller.changed.connect(self._on_change)
        controller.notified.connect(self._on_message)
        controller.followers.append(self)
        bind_keys(viewer, controller)
        # The widgets are deleted with the dock or the viewer, while work may still be running.
        self.destroyed.connect(_Leaving(viewer, controller, [self, *self.findChildren(QWidget)]))
        self.refresh()
        self._show_saving()
        single_shot(self._widen, self).start(0)  # once the window has given it a style
        single_shot(prepare_layers, self).start(_PREPARING)
        collect_rarely()  # napari is loaded, and a case will be opened
        steady_boxes()

    def _arrange(self) -> None:
        inside = QWidget()
        column(inside, self.start, *self.folds.values(), margins=(0, 0, 0, 0), spacing=2).addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        WheelScrolls(inside)
        self.scroll_area = scroll
        top = row(self.advice, self.help_button, stretch=0)
        below = (self.offer, self.resume, self.sample, self.head, self.message, self.encoder, scroll, self.saved)
        column(self, self.head.name, self.steps, top, *below, margins=(4, 4, 4, 4))
        self._widen()
        for fold in self.folds.values():
            fold.title.toggled.connect(self._widen)

    def _widen(self, *_: object) -> None:
        """Be wide enough that the scroll bar covers no section, also with the style that one gets when it unfolds."""
        bar = self.scroll_area.verticalScrollBar()
        beside = bar.sizeHint().width() if bar is not None else 16
        for layout in self.scroll_area.findChildren(QLayout):
            layout.invalidate()  # it keeps the size that its widgets had before they got the style of the window
        widest = max(fold.content.minimumSizeHint().width() for fold in self.folds.values())  # folded ones too
        self.setMinimumWidth(max(self.minimumWidth(), widest + beside + 12))

    # --- showing ----------------------------------------------------------------------------------------------------

    def _help(self) -> None:
        show_help(self.controller.viewer)

    def _on_change(self, what: Change) -> None:
        if what & Change.SESSION:
            self._show_case()
        if what & Change.PROJECT:
            self._show_project()
        if what & Change.PREDICTIONS:
            self._open_review()
        if what & Change.SAVING:
            self._show_saving()
        if what & Change.SLICE and self._slice not in (None, self.controller.current_slice):
            self._clear_message()
        if what & ~(
            Change.SELECTION
            | Change.SLICE
            | Change.TOOL
            | Change.WINDOW
            | Change.SAVING
            | Change.PROJECT
            | Change.LIVE
            | Change.MEASURES
        ):
            self.refresh()

    def follow(self, what: Change) -> None:
        """Hide an error once the person has labelled on."""
        if self._erring and what & (Change.LABELS | Change.CLASSES):
            self._clear_message()

    def refresh(self) -> None:
        """Show the next step, and which encoder is in use."""
        controller, setup = self.controller, self.controller.setup
        self.advice.setText(advice(controller))
        for section in (self.classes, self.train):
            section.setEnabled(not controller.read_only)
        has_case = controller.session is not None
        for title in _NEED_A_CASE:
            self.folds[title].setVisible(has_case)
        self.encoder.setVisible(has_case)
        if setup.encoder_in_use is not None:
            self.encoder.setText(f"Encoder in use: {setup.encoder_in_use}")
        else:
            self.encoder.setText(f"Encoder: {setup.encoder_expected or setup.settings.encoder}")

    def _show_saving(self) -> None:
        """Show whether the labels are on disk."""
        saving = self.controller.saving
        self.saved.setText(saving.state)
        self.saved.setStyleSheet(_ALARM if saving.refused else "")
        self.saved.setVisible(bool(saving.state))

    def _show_project(self) -> None:
        """Unfold the project when it is opened; fold it when a case is opened by itself."""
        name = self.controller.project.name
        if name != self._project:
            self._project = name
            self.folds["Project"].set_open(bool(name) or self.controller.session is None)
            self.folds["Case"].set_open(False)
        if self.controller.session is None:
            self.refresh()

    def _show_case(self) -> None:
        if self.controller.session is not None and self.controller.project.current is None:
            self.folds["Project"].set_open(False)
        self.folds["Case"].set_open(False)
        self.folds["Review"].set_open(False)
        self._reviewed = False
        self.scroll_area.ensureVisible(0, 0)

    def _open_review(self) -> None:
        """Unfold the Review section at the first predictions of a case."""
        session = self.controller.session
        book = session.labels if session is not None else None
        if book is not None and (book.confidence or _to_review(book)) and not self._reviewed:
            self._reviewed = True
            self.folds["Review"].set_open(True)
            # Scrolls there once only, and not under the hand of someone who paints; from then on the person decides.
            if not self.controller.live.learns:
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
            self._fade.stop()  # an error stays until the next action
            self._erring = True
            self.message.setStyleSheet(_ALARM)

    def _show_message(self, text: str) -> None:
        self._slice, self._erring = None, False
        self.message.setStyleSheet("")
        self.message.setText(text)
        self.message.show()
        self._fade.start(_READ)

    def _show_notice(self, text: str) -> None:
        """Show a notice, together with others that came within a second."""
        now = time.monotonic()
        together = self.message.isVisible() and now - self._noted < _TOGETHER
        self._noted = now
        shown = self.message.text().split("\n") if together else []
        self._show_message("\n".join([*shown, *([text] if text not in shown else [])]))
        self._fade.start(_READ * (len(shown) + 1))

    def _clear_message(self) -> None:
        self._slice, self._erring = None, False
        self.message.hide()


class _Leaving:
    """Called when the panel is deleted. Not a method of the panel, because those are disconnected by then."""

    def __init__(self, viewer: Any, controller: Controller, widgets: list[QWidget]) -> None:
        self.viewer, self.controller, self.widgets = viewer, controller, widgets

    def __call__(self, *_: object) -> None:
        self.controller.followers[:] = [part for part in self.controller.followers if part not in self.widgets]
        if self.controller.users <= 1:
            unbind_keys(self.viewer)
        self.controller.release(self.widgets)
        self.widgets = []


class OfferBar(QFrame):
    """Asks whether to annotate an image that was added to the viewer."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setObjectName("offer_bar")
        self.setStyleSheet(FRAME.format(name="offer_bar"))
        self.text = sentence()
        self.yes_button = button("Annotate", "Open it here; the current case is saved", controller.cases.take_offer)
        self.no_button = button("Not now", "Leave it in the viewer as it is", controller.cases.decline_offer)
        column(self, self.text, row(self.yes_button, self.no_button), margins=(6, 6, 6, 6))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.OFFER | Change.WORK):
            self.refresh()

    def refresh(self) -> None:
        """Show or hide the question."""
        layer = self.controller.cases.offer
        self.setVisible(layer is not None)
        self.yes_button.setEnabled(not self.controller.jobs.busy)
        if layer is not None:
            self.text.setText(f"Annotate {layer.name}?")


class ResumeBar(QFrame):
    """Saved labels to continue, a session that another window writes, or a list of labels that could not be read."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setObjectName("resume_bar")
        self.setStyleSheet(FRAME.format(name="resume_bar"))
        self.text = sentence()
        self.choice = choice([], "The saved labels of this case, the newest first")
        self.choice.currentIndexChanged.connect(self._describe)
        self.problems = QPlainTextEdit()
        self.problems.setReadOnly(True)
        self.problems.setFixedHeight(_LIST_HEIGHT)
        self.go_on_button = button("Continue", "Restore these labels and continue with them", self._go_on)
        self.start_over_button = button(
            "Start over",
            "Begin without labels. The saved ones stay on disk, and are offered again when the case is next opened",
            controller.sessions.start_over,
        )
        self.again_button = button(
            "Try again", "Continue here after the other window was closed", controller.sessions.try_again
        )
        self.read_button = button("I have read this", "Close this list", controller.sessions.problems_are_read)
        buttons = row(self.go_on_button, self.again_button, self.start_over_button, self.read_button)
        column(self, self.text, self.choice, self.problems, buttons, margins=(6, 6, 6, 6))
        controller.changed.connect(self._on_change)
        self.refresh()

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.SAVED_SESSIONS | Change.WORK | Change.PROJECT):
            self.refresh()

    def refresh(self) -> None:
        """Show the choice, the reason for read-only, or the problems."""
        sessions, read_only = self.controller.sessions, self.controller.read_only
        offers = [] if read_only else sessions.offers
        problems = sessions.problems
        self.setVisible(bool(offers or read_only or problems))
        self.choice.setVisible(len(offers) > 1 and not problems)
        self.problems.setVisible(bool(problems))
        self.go_on_button.setVisible(bool(offers) and not problems)
        self.again_button.setVisible(bool(read_only) and not problems)
        alone = self.controller.project.current is None
        self.start_over_button.setVisible(alone and bool(offers or read_only) and not problems)
        self.read_button.setVisible(bool(problems))
        for widget in (self.go_on_button, self.again_button, self.start_over_button, self.choice):
            widget.setEnabled(not self.controller.jobs.busy)
        if problems:
            self.text.setText("Your labels are back, but not all of them could be read:")
            self.problems.setPlainText("\n".join(in_words(problem) for problem in problems))
        elif read_only:
            self.text.setText(read_only)
        elif offers:
            self._list(offers)

    def _list(self, offers: list[SavedSession]) -> None:
        lines = [when(saved) for saved in offers]
        if lines != [self.choice.itemText(line) for line in range(self.choice.count())]:
            quietly(self.choice, self.choice.clear)
            quietly(self.choice, lambda: self.choice.addItems(lines))
        self._describe()

    def _describe(self, *_: object) -> None:
        chosen, session = self._chosen(), self.controller.session
        if chosen is not None:
            self.text.setText(describe(chosen, noun_of(session.case) if session is not None else "slice"))

    def _chosen(self) -> SavedSession | None:
        offers = self.controller.sessions.offers
        return offers[min(max(0, self.choice.currentIndex()), len(offers) - 1)] if offers else None

    def _go_on(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.controller.sessions.go_on(chosen)


_FINISH = "When this case is right, press 'Done and next'."


def advice(controller: Controller) -> str:
    """The next step for the person, in one sentence or two."""
    session = controller.session
    if controller.jobs.busy:
        return "Stopping…" if controller.jobs.stopping else _while_busy(controller)
    if session is None:
        return _to_open(controller)
    if controller.layers is not None and controller.layers.manual is None:
        return "The labels layer was removed; nothing is lost. Press 'Bring layers back' in the Label section."
    if controller.guard is not None and controller.guard.reason:
        return controller.guard.reason
    if controller.read_only:
        return "Look at these labels and export them here; press 'Try again' when the other window is closed."
    if controller.jobs.interrupted:
        return "The scheduler was lost. Press 'Continue on this computer' in the Train section, or Train to try again."
    if controller.sessions.unanswered:
        return "Continue with your labels, or start over: choose below."
    noun = noun_of(session.case)
    elsewhere = sum(len(slices) for slices in controller.project.labelled_elsewhere.values())
    live = controller.live.is_on and controller.live.may_load
    foreign = _to_review(session.labels)
    if foreign and not smart_advice(controller):
        of = counted(foreign, noun)
        return f"Masks of another program are on {of}: look at each, and accept (A), correct or reject it."
    to_label = smart_advice(controller) or _to_label(session, noun, elsewhere, live=live)
    return to_label or _after_training(controller, session, noun)


def _to_open(controller: Controller) -> str:
    project = controller.project.current
    if project is None:
        return "1. Open a case, or try the brain sample."
    if not project.cases:
        return "1. Add files or a folder in the Project section."
    return "Double-click a case in the Project section."


def _to_review(book: LabelBook) -> int:
    """On how many slices a mask of another program is the prediction that counts."""
    own = book.confidence
    return sum(book.status(i) is Status.PREDICTED and i not in own for i in range(book.n_slices))


def _to_label(session: Session, noun: str, elsewhere: int, *, live: bool) -> str | None:
    """What is missing for a first training; None if nothing is, or a model is trained.

    Args:
        session: of the open case.
        noun: for its slices.
        elsewhere: labelled slices of other cases of the project.
        live: whether masks appear without a training.
    """
    book = session.labels
    labelled = book.labelled
    if not book.classes:
        return "Add a class for what you want to find."
    if session.is_trained and not labelled:
        return None  # a saved model
    if not labelled:
        return _to_begin(session, noun, elsewhere, live=live)
    if not elsewhere and not any(((book.truth(i) != 0) & (book.truth(i) != UNKNOWN)).any() for i in labelled):
        return f"Only background is labelled so far. Paint a class on at least one {noun}."
    if session.is_trained:
        return None
    count = f"{counted(len(labelled), noun)} labelled{' here' if elsewhere else ''}."
    if live and book.open_slices:
        if not book.confidence:
            return f"{count} Go on painting: masks appear on the other {noun}s in a few seconds."
        return (
            f"3. {count} Look at other {noun}s: accept their masks, or paint where they are wrong. "
            "Train makes the model to save."
        )
    if not book.open_slices and not elsewhere:
        return f"{count} That is the whole case: export the mask, or press Train for a model for other cases."
    if len(labelled) + elsewhere < min(ENOUGH_TO_START, session.case.n_slices):
        return f"{count} Paint {ENOUGH_TO_START} to 5, spread out ('Go to suggested' shows where), then press Train."
    return f"3. {count} Press Train."


def _to_begin(session: Session, noun: str, elsewhere: int, *, live: bool) -> str:
    """The next step where no slice of the open case is labelled; arguments as of `_to_label`."""
    if elsewhere:
        return f"{counted(elsewhere, noun)} labelled in other cases. Label some here too, or press Train."
    classes = session.labels.classes
    names = " and ".join(f"'{entry.name}'" for entry in classes[:2]) + (" …" if len(classes) > 2 else "")
    if session.case.n_slices == 1:
        return f"2. Paint {names} with the brush: this case has only one {noun}."
    if live:
        return f"2. Paint {names} on one {noun} with the brush. Masks then appear on the {noun}s beside it."
    more = "two to four more, spread out" if session.case.n_slices > ENOUGH_TO_START else "the others"
    return f"2. Paint {names} on one {noun} with the brush, then on {more}. Then press Train."


def _after_training(controller: Controller, session: Session, noun: str) -> str:
    book, is_of_project = session.labels, controller.project.held is not None
    learnt = set(session.history[-1].labelled) if session.history else set()
    new = controller.project.unlearnt if is_of_project else len([i for i in book.labelled if i not in learnt])
    found = controller.view.suggestion()
    if found is None or not book.open_slices:
        return f"Every {noun} is labelled. {_FINISH if is_of_project else 'Export the masks.'}"
    if not book.confidence:
        return "Press Predict to see masks on the other slices."
    if new:
        return f"{counted(new, noun)} labelled since the last training. Press Train to learn from that too."
    name = slice_name(session.case, found.index)
    end = _FINISH if is_of_project else "Export when you are satisfied."
    return f"4. Look at {name} ({found.reason}): accept it, or correct it and train again. {end}"


def _while_busy(controller: Controller) -> str:
    if controller.jobs.name == TRAINING:
        return "Learning from your labels. You can keep painting: it counts in the next training."
    if controller.jobs.name == PREDICTING:
        return "Masks appear as they come, nearest slices first. You can look and paint meanwhile."
    return f"{controller.jobs.name}…"
