"""The panel: a status line that says what to do next, and the sections. It only puts them together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QToolButton, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.classes_section import ClassesSection
from napari_dinoaugseg.gui.controller import Controller
from napari_dinoaugseg.gui.export_section import ExportSection
from napari_dinoaugseg.gui.head import Head
from napari_dinoaugseg.gui.help_popup import show_help
from napari_dinoaugseg.gui.keys import bind_keys, tooltip, unbind_keys
from napari_dinoaugseg.gui.label_section import LabelSection
from napari_dinoaugseg.gui.offer_bar import OfferBar
from napari_dinoaugseg.gui.parts import Collapsible, row, sentence
from napari_dinoaugseg.gui.resume_bar import ResumeBar
from napari_dinoaugseg.gui.review_section import ReviewSection
from napari_dinoaugseg.gui.study_section import StudySection
from napari_dinoaugseg.gui.train_section import TrainSection

if TYPE_CHECKING:
    import napari

_PAUSE = 60  # ms: many things change at once
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
        self._of_slice = False  # whether the message tells of the slice in view
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
        self.study = StudySection(controller)
        self.classes = ClassesSection(controller)
        self.label = LabelSection(controller)
        self.train = TrainSection(controller, self.head)
        self.review = ReviewSection(controller)
        self.export = ExportSection(controller)
        self.folds = {
            title: Collapsible(title, section, opened=opened)
            for title, section, opened in (
                ("Study", self.study, True),
                ("Classes", self.classes, True),
                ("Label", self.label, True),
                ("Train", self.train, True),
                ("Review", self.review, False),
                ("Export", self.export, False),
            )
        }
        self.setStyleSheet(_DISABLED)
        self._arrange()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.refresh)
        self._fade = QTimer(self)
        self._fade.setSingleShot(True)
        self._fade.timeout.connect(self.message.hide)
        for signal in (
            controller.session_changed,
            controller.labels_changed,
            controller.predictions_changed,
            controller.classes_changed,
            controller.layers_changed,
            controller.settings_changed,
            controller.sessions_changed,
            controller.work_started,
            controller.work_finished,
            controller.view_changed,
            controller.offered,
        ):
            signal.connect(self._soon)
        controller.saving_changed.connect(self._show_saving)
        controller.session_changed.connect(self._on_session)
        controller.predictions_changed.connect(self._on_prediction)
        controller.said.connect(self._say)
        controller.suggested.connect(self._say_of_slice)
        controller.slice_changed.connect(self._on_slice)
        controller.notice.connect(self._note)
        controller.failed.connect(self._fail)
        controller.work_started.connect(self._clear_message)
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
        layout.addWidget(self.head.case)
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

    def _soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start(_PAUSE)

    def refresh(self) -> None:
        """Say what to do next, and which encoder is in use."""
        controller = self.controller
        self.advice.setText(controller.advice)
        for section in (self.classes, self.train):  # of what can only be looked at, nothing here is for looking
            section.setEnabled(not controller.read_only)
        if controller.encoder_in_use is not None:
            self.encoder.setText(f"Encoder in use: {controller.encoder_in_use}")
        elif controller.encoder_expected is not None:
            self.encoder.setText(f"Encoder: {controller.encoder_expected}")
        else:
            self.encoder.setText(f"Encoder: {controller.settings.encoder}")

    def _show_saving(self) -> None:
        """Whether the labels are on disk, always at the same place."""
        saving = self.controller.saving
        self.saved.setText(saving.state)
        self.saved.setStyleSheet(_ALARM if saving.refused else "")
        self.saved.setVisible(bool(saving.state))

    def _on_session(self) -> None:
        self.folds["Study"].set_open(self.controller.session is None)
        self.folds["Review"].set_open(False)
        self._reviewed = False
        self.scroll_area.ensureVisible(0, 0)
        self._clear_message()

    def _on_prediction(self, _: int) -> None:
        session = self.controller.session
        if session is not None and session.labels.confidence and not self._reviewed:
            self._reviewed = True
            self.folds["Review"].set_open(True)
            # Once: from here on the person decides what is in view.
            QTimer.singleShot(_PAUSE, self._show_review)

    def _show_review(self) -> None:
        if not self.controller.closed:
            self.scroll_area.ensureWidgetVisible(self.folds["Review"])

    def _say(self, text: str) -> None:
        self._of_slice = False
        self.message.setStyleSheet("")
        self.message.setText(text)
        self.message.show()
        self._fade.start(_READ)

    def _note(self, text: str) -> None:
        """Show a notice; those that come together are shown together."""
        now = time.monotonic()
        together = self.message.isVisible() and now - self._noted < _TOGETHER
        self._noted = now
        shown = self.message.text().split("\n") if together else []
        self._say("\n".join([*shown, *([text] if text not in shown else [])]))
        self._fade.start(_READ * (len(shown) + 1))

    def _say_of_slice(self, text: str) -> None:
        self._say(text)
        self._of_slice = True

    def _on_slice(self, _: int) -> None:
        if self._of_slice:
            self._clear_message()

    def _fail(self, text: str) -> None:
        self._say(text)
        self._fade.stop()  # an error stays until something else is done
        self.message.setStyleSheet(_ALARM)
        self._soon()

    def _clear_message(self, *_: object) -> None:
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
