"""The bar on top of the panel: saved labels to go on with, a session that another window writes, what was damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QFrame, QPlainTextEdit, QVBoxLayout, QWidget

from napari_dinoaugseg.gui.parts import button, quietly, row, sentence
from napari_dinoaugseg.gui.session_actions import describe, when

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.places import SavedSession

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
        self.choice.setToolTip("The saved labels of this study, the newest first")
        self.choice.setMinimumContentsLength(8)
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.choice.currentIndexChanged.connect(self._describe)
        self.problems = QPlainTextEdit()
        self.problems.setReadOnly(True)
        self.problems.setFixedHeight(_LIST_HEIGHT)
        self.go_on_button = button("Go on", "Bring these labels back and go on with them", self._go_on)
        self.anew_button = button(
            "Start anew",
            "Begin without labels. The saved ones stay on disk, and are offered again when the study is next opened",
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
        for signal in (
            controller.sessions_changed,
            controller.session_changed,
            controller.work_started,
            controller.work_finished,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def refresh(self, *_: object) -> None:
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
            widget.setEnabled(not self.controller.busy)
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
        return "picture" if session is not None and session.study.kind == "pictures" else "slice"

    def _chosen(self) -> SavedSession | None:
        offers = self.controller.sessions.offers
        return offers[max(0, self.choice.currentIndex())] if offers else None

    def _go_on(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.controller.sessions.go_on(chosen)
