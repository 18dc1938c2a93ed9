"""Looking at predictions: where to look next, take or refuse them, and how well they agree with corrections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_dinoaugseg.gui.agreement_curve import AgreementCurve
from napari_dinoaugseg.gui.keys import tooltip
from napari_dinoaugseg.gui.questions import confirmed
from napari_dinoaugseg.gui.theme import text_colour
from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

_PAUSE = 80  # ms: predictions arrive one by one, the section follows in steps
_CONTOUR = 2  # pixels


class ReviewSection(QWidget):
    """The section "Review"."""

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self._suggested: int | None = None
        self._build()
        self._arrange()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self.refresh)
        for signal in (
            controller.session_changed,
            controller.labels_changed,
            controller.predictions_changed,
            controller.layers_changed,
            controller.slice_changed,
            controller.work_started,
            controller.work_finished,
        ):
            signal.connect(self._soon)
        controller.viewer.events.theme.connect(self._follow_theme)
        self._follow_theme()
        self.refresh()

    # --- making -----------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.next_text = _text()
        self.go_button = self._button("Go", tooltip("Show this slice", "next_suggested"), self._go)
        self.state_text = _text()
        self.accept_button = self._button(
            "Accept", tooltip("The prediction of this slice is right: learn from it", "accept"), self._accept
        )
        self.correct_button = self._button(
            "Correct", "Copy the prediction into the manual layer, to correct it with the brush", self._correct
        )
        self.reject_button = self._button("Reject", "Throw the prediction of this slice away", self._reject)
        self.threshold = QSpinBox()
        self.threshold.setRange(50, 100)
        self.threshold.setValue(95)
        self.threshold.setSuffix(" %")
        self.threshold.setToolTip("How certain a prediction must be; the confidence of the slice in view is above")
        self.threshold.valueChanged.connect(self.refresh)
        self.accept_all_button = self._button(
            "Accept all", "Accept every predicted slice with at least this confidence", self._accept_all
        )
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip(
            tooltip("How strongly the prediction covers the image; hide it for a moment", "toggle_prediction")
        )
        self.opacity.valueChanged.connect(self._show_opacity)
        self.style_choice = QComboBox()
        self.style_choice.addItems(["Filled", "Outline"])
        self.style_choice.setToolTip("How the prediction is drawn")
        self.style_choice.currentIndexChanged.connect(self._show_style)
        self.confidence_box = QCheckBox("Show confidence")
        self.confidence_box.setToolTip("Colour each pixel by how certain the model is: dark where it is unsure")
        self.confidence_box.toggled.connect(self._show_confidence)
        self.agreement_text = _text()
        self.curve = AgreementCurve()

    def _button(self, text: str, tip: str, action: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda _=False: action())
        return button

    def _arrange(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.addLayout(_row(self.next_text, self.go_button))
        layout.addWidget(self.state_text)
        layout.addLayout(_row(self.accept_button, self.correct_button, self.reject_button))
        layout.addLayout(_row(QLabel("From confidence"), self.threshold, self.accept_all_button))
        form = QFormLayout()
        form.addRow("Prediction", self.opacity)
        form.addRow("Drawn", _line(self.style_choice, self.confidence_box))
        layout.addLayout(form)
        layout.addWidget(self.agreement_text)
        layout.addWidget(self.curve)

    # --- showing ----------------------------------------------------------------------------------------------------

    def _soon(self, *_: object) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def refresh(self, *_: object) -> None:
        """Show the state of the session and of the slice in view."""
        session = self.controller.session
        self._show_next(session)
        self._show_slice(session)
        self._show_accept_all(session)
        self._show_layer()
        self._show_agreement(session)

    def _follow_theme(self, *_: object) -> None:
        self.curve.set_text_colour(text_colour(self.controller.viewer))

    def _show_next(self, session: Session | None) -> None:
        found = self.controller.suggestion() if session is not None else None
        self._suggested = found.index if found is not None else None
        self.go_button.setEnabled(found is not None)
        if session is None:
            self.next_text.setText("Predictions can be reviewed here after the first training.")
        elif found is None:
            self.next_text.setText("Every slice is labelled.")
        else:
            name = session.study.slice_name(found.index)
            self.next_text.setText(f"Next to label: <b>{name}</b><br>{found.reason}")

    def _show_slice(self, session: Session | None) -> None:
        here = self.controller.current_slice
        status = session.labels.status(here) if session is not None else Status.EMPTY
        predicted = session is not None and session.labels.predicted(here) is not None
        self.accept_button.setEnabled(status is Status.PREDICTED)
        self.correct_button.setEnabled(predicted or status is Status.ACCEPTED)
        self.reject_button.setEnabled(predicted)
        if session is None:
            self.state_text.setText("")
            return
        confidence = session.labels.confidence.get(here)
        sure = f", confidence {confidence:.0%}" if confidence is not None and status is Status.PREDICTED else ""
        name = session.study.slice_name(here)
        self.state_text.setText(f"In view: <b>{name}</b>, {_WORDS[status]}{sure}")

    def _show_accept_all(self, session: Session | None) -> None:
        count = len(self._certain(session)) if session is not None else 0
        self.accept_all_button.setText(f"Accept {count} slice{'' if count == 1 else 's'}")
        self.accept_all_button.setEnabled(count > 0)

    def _certain(self, session: Session) -> list[int]:
        book, least = session.labels, self.threshold.value() / 100
        return [i for i, value in book.confidence.items() if value >= least and book.status(i) is Status.PREDICTED]

    def _show_layer(self) -> None:
        layers = self.controller.layers
        layer = layers.prediction if layers is not None else None
        for widget in (self.opacity, self.style_choice, self.confidence_box):
            widget.setEnabled(layer is not None)
        if layer is None or layers is None:
            return
        _quietly(self.opacity, self.opacity.setValue, round(layer.opacity * 100))
        _quietly(self.style_choice, self.style_choice.setCurrentIndex, int(layer.contour > 0))
        shown = layers.confidence is not None and layers.confidence.visible
        _quietly(self.confidence_box, self.confidence_box.setChecked, shown)

    def _show_agreement(self, session: Session | None) -> None:
        rounds = [done.agreement for done in session.history] if session is not None else []
        now = session.agreement() if session is not None and session.history else None
        points = {number: value for number, value in enumerate(rounds) if value is not None}
        if now is not None:
            points[len(rounds)] = now
        self.curve.show_points(points)
        self.curve.setVisible(bool(points))
        self.agreement_text.setVisible(bool(rounds))
        if points:
            last = max(points)
            self.agreement_text.setText(
                f"Predictions of training {last} agree with your corrections by <b>{points[last]:.0%}</b> (Dice)."
            )
        else:
            self.agreement_text.setText("Correct a predicted slice to see how well the predictions agree with you.")

    # --- doing ------------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        if self._suggested is not None:
            self.controller.guarded(self.controller.go_to, self._suggested)

    def _accept(self) -> None:
        self.controller.accept(self.controller.current_slice)

    def _accept_all(self) -> None:
        self.controller.accept_above(self.threshold.value() / 100)

    def _reject(self) -> None:
        self.controller.reject(self.controller.current_slice)

    def _correct(self) -> None:
        controller, here = self.controller, self.controller.current_slice
        controller.flush()
        session = controller.session
        painted = session is not None and session.labels.status(here) is Status.MANUAL
        if painted and not self._may_overwrite(here):
            return
        controller.copy_to_manual(here, overwrite=painted)

    def _may_overwrite(self, index: int) -> bool:
        """Ask; what a person painted is never replaced without."""
        session = self.controller.session
        name = session.study.slice_name(index) if session is not None else f"slice {index}"
        text = f"You painted {name} by hand. Replace it by the prediction? Ctrl+Z brings it back."
        return confirmed(self, "Replace what you painted?", text)

    def _show_opacity(self, percent: int) -> None:
        layers = self.controller.layers
        if layers is not None and layers.prediction is not None:
            layers.prediction.opacity = percent / 100

    def _show_style(self, index: int) -> None:
        layers = self.controller.layers
        if layers is not None and layers.prediction is not None:
            layers.prediction.contour = _CONTOUR if index else 0

    def _show_confidence(self, on: bool) -> None:
        layers = self.controller.layers
        if layers is not None:
            self.controller.guarded(layers.show_confidence, on)


_WORDS = {
    Status.EMPTY: "not labelled, no prediction yet",
    Status.MANUAL: "labelled by hand",
    Status.ACCEPTED: "prediction accepted",
    Status.PREDICTED: "predicted",
}


def _text() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    return label


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, 1 if isinstance(widget, QLabel) and widget.wordWrap() else 0)
    return row


def _line(*widgets: QWidget) -> QHBoxLayout:
    line = _row(*widgets)
    line.addStretch(1)
    return line


def _quietly(widget: QWidget, setter: Callable[[Any], Any], value: Any) -> None:
    """Show a value without acting on it."""
    blocked = widget.blockSignals(True)
    try:
        setter(value)
    finally:
        widget.blockSignals(blocked)
