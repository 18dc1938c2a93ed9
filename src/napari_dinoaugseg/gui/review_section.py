"""Review of predictions: the next slice, accept, correct or reject, and the agreement with corrections."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QSlider, QSpinBox, QWidget

from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.foreign_masks import take_for_case
from napari_dinoaugseg.gui.keys import accept_and_go_on, accept_certain, correct, reject, tooltip
from napari_dinoaugseg.gui.surface_box import SurfaceBox
from napari_dinoaugseg.gui.widgets import (
    Chart,
    ask_for_file,
    ask_for_folder,
    button,
    column,
    quietly,
    row,
    sentence,
)
from napari_dinoaugseg.gui.words import counted, slice_name
from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.session import Session

_MASKS = "Masks (*.nii.gz *.nii *.nrrd);;All files (*)"
_WORDS = {
    Status.EMPTY: "not labelled, no prediction yet",
    Status.MANUAL: "labelled by hand",
    Status.ACCEPTED: "prediction accepted",
    Status.PREDICTED: "predicted",
}


class AgreementCurve(Chart):
    """The agreement of predictions with corrections, as Dice in percent over trainings.

    Attributes:
        points: agreement (0 to 1) by the number of the training, from 1.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, 136, ("#e69f00", "#b35900"), symbol="o", symbolSize=7)
        self.points: dict[int, float] = {}
        self.setToolTip("Dice between predictions and your corrections of them; 100 % = nothing had to be corrected")
        self.setLabel("bottom", "agreement in % after each training")
        self.getAxis("bottom").setHeight(44)  # the default height cuts off descenders

    def show_points(self, points: Mapping[int, float]) -> None:
        """Show other points, see `points`."""
        if dict(points) == self.points:
            return
        self.points = dict(points)
        numbers = sorted(self.points)
        percent = [100 * self.points[number] for number in numbers]
        self.line.setData(numbers, percent)
        if not numbers:
            return
        ticks = [(number, str(number)) for number in range(numbers[0], numbers[-1] + 1)]
        self.getAxis("bottom").setTicks([ticks])
        self.setXRange(numbers[0] - 0.4, numbers[-1] + 0.4, padding=0)
        self.setYRange(max(0.0, min(percent) - 5), 104, padding=0)


class ReviewSection(QWidget):
    """The section "Review"."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._suggested: int | None = None
        self._build()
        self._arrange()
        controller.changed.connect(self._on_change)
        self.refresh()

    # --- building ---------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        controller = self.controller
        self.next_text = sentence(rich=True)
        self.go_button = button("Go", tooltip("Show this slice", "next_suggested"), self._go)
        self.state_text = sentence(rich=True)
        self.accept_button = button(
            "Accept",
            tooltip("The prediction of this slice is right: learn from it, and go on to the next slice", "accept"),
            lambda: controller.guarded(accept_and_go_on, controller),
        )
        self.correct_button = button(
            "Correct",
            tooltip("Copy the prediction into the manual layer, to correct it with the brush", "correct"),
            lambda: controller.guarded(correct, controller, self),
        )
        self.reject_button = button(
            "Reject",
            tooltip("Discard the prediction of this slice", "reject"),
            lambda: controller.guarded(reject, controller),
        )
        self.threshold = QSpinBox()
        self.threshold.setRange(50, 100)
        self.threshold.setValue(90)
        self.threshold.setSuffix(" %")
        self.threshold.setToolTip(
            "How sure the model must be of a slice; the confidence of the slice in view stands above"
        )
        self.threshold.valueChanged.connect(self.refresh)
        self.accept_all_button = button(
            "Accept all", "Accept every predicted slice with at least this confidence", self._accept_all
        )
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip(
            tooltip("How strongly the prediction covers the image; hide it for a moment", "toggle_prediction")
        )
        self.opacity.valueChanged.connect(self._show_opacity)
        self.style_choice = QComboBox()
        self.style_choice.addItems(["filled", "as outlines"])
        self.style_choice.setToolTip("How predictions are drawn; what you painted or accepted is always filled")
        self.style_choice.currentIndexChanged.connect(self._show_style)
        self.confidence_box = QCheckBox("Mark where the model is unsure (red)")
        self.confidence_box.setToolTip(
            "Colour over the prediction: red where the model is unsure, clear where it is sure"
        )
        self.confidence_box.toggled.connect(self._show_confidence)
        self.surfaces = SurfaceBox(controller)
        self.foreign_button = button(
            "Masks of nnU-Net…", "Take a mask that nnU-Net predicted for this case, to be reviewed", self._foreign
        )
        self.accept_foreign_button = button(
            "Accept masks",
            "Accept every mask of nnU-Net that still waits for review; it has no confidence to choose by",
            lambda: controller.guarded(accept_certain, controller, None, self),
        )
        self.agreement_text = sentence(rich=True)
        self.curve = AgreementCurve(controller.viewer)

    def _arrange(self) -> None:
        form = QFormLayout()
        form.addRow("Opacity", self.opacity)
        form.addRow("Draw", self.style_choice)
        column(
            self,
            row(self.next_text, self.go_button, stretch=0),
            self.state_text,
            row(self.accept_button, self.correct_button, self.reject_button),
            row(QLabel("Confidence from"), self.threshold, self.accept_all_button, stretch=2),
            form,
            self.confidence_box,
            self.surfaces,
            row(self.foreign_button, self.accept_foreign_button),
            self.agreement_text,
            self.curve,
            margins=(6, 4, 6, 4),
        )

    # --- showing ----------------------------------------------------------------------------------------------------

    def _on_change(self, what: Change) -> None:
        if what & (Change.SESSION | Change.LABELS | Change.PREDICTIONS | Change.LAYERS | Change.SLICE | Change.WORK):
            self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the state of the session and of the slice in view."""
        session = self.controller.session
        self._show_next(session)
        self._show_slice(session)
        self._show_accept_all(session)
        self._show_layer()
        self._show_agreement(session)

    def _show_next(self, session: Session | None) -> None:
        found = self.controller.view.suggestion() if session is not None else None
        self._suggested = found.index if found is not None else None
        self.go_button.setEnabled(found is not None)
        if session is None:
            self.next_text.setText("Predictions can be reviewed here after the first training.")
        elif found is None:
            self.next_text.setText("Every slice is labelled.")
        else:
            name = slice_name(session.case, found.index)
            self.next_text.setText(f"Next to label: <b>{escape(name)}</b><br>{found.reason}")

    def _show_slice(self, session: Session | None) -> None:
        here = self.controller.current_slice
        status = session.labels.status(here) if session is not None else Status.EMPTY
        predicted = session is not None and session.labels.predicted(here) is not None
        writable = not self.controller.read_only
        self.accept_button.setEnabled(writable and status is Status.PREDICTED)
        self.correct_button.setEnabled(writable and (predicted or status is Status.ACCEPTED))
        self.reject_button.setEnabled(writable and predicted)
        idle = not self.controller.jobs.busy
        self.foreign_button.setEnabled(session is not None and writable and idle and bool(session.labels.classes))
        if session is None:
            self.state_text.setText("")
            return
        confidence = session.labels.confidence.get(here)
        sure = ""
        if status is Status.PREDICTED:
            sure = f", confidence {confidence:.0%}" if confidence is not None else " by another program"
        name = slice_name(session.case, here)
        self.state_text.setText(f"In view: <b>{escape(name)}</b>, {_WORDS[status]}{sure}")

    def _show_accept_all(self, session: Session | None) -> None:
        count = len(self.controller.labels.certain_slices(self.threshold.value() / 100))
        self.accept_all_button.setText(f"Accept {counted(count, 'slice')}")
        self.accept_all_button.setEnabled(count > 0 and not self.controller.read_only)
        best = max(session.labels.confidence.values(), default=None) if session is not None else None
        highest = f"; the highest is {best:.0%}" if best is not None else ""
        self.accept_all_button.setToolTip(f"Accept every predicted slice with at least this confidence{highest}")
        taken = len(self.controller.labels.certain_slices(None))
        self.accept_foreign_button.setText(f"Accept {counted(taken, 'mask')} of nnU-Net")
        self.accept_foreign_button.setVisible(taken > 0)
        self.accept_foreign_button.setEnabled(not self.controller.read_only)

    def _show_layer(self) -> None:
        layers = self.controller.layers
        layer = layers.prediction if layers is not None else None
        for widget in (self.opacity, self.style_choice, self.confidence_box):
            widget.setEnabled(layer is not None)
        if layer is None or layers is None:
            return
        quietly(self.opacity, lambda: self.opacity.setValue(round(layer.opacity * 100)))
        quietly(self.style_choice, lambda: self.style_choice.setCurrentIndex(int(layer.contour > 0)))
        shown = layers.confidence is not None and layers.confidence.visible
        quietly(self.confidence_box, lambda: self.confidence_box.setChecked(shown))

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
            self.controller.guarded(self.controller.view.go_to, self._suggested)

    @guarded
    def _foreign(self) -> None:
        session = self.controller.session
        if session is None:
            return
        beside = session.case.path.parent if session.case.path.is_absolute() else None
        if session.case.kind == "volume":
            path = ask_for_file(self, "predictions", "Mask that nnU-Net predicted", _MASKS, beside=beside)
        else:
            path = ask_for_folder(self, "predictions", "Folder with the masks that nnU-Net predicted", beside=beside)
        if path is not None:
            take_for_case(self.controller, path)

    def _accept_all(self) -> None:
        self.controller.guarded(accept_certain, self.controller, self.threshold.value() / 100, self)

    def _show_opacity(self, percent: int) -> None:
        layers = self.controller.layers
        if layers is not None and layers.prediction is not None:
            layers.prediction.opacity = percent / 100

    def _show_style(self, index: int) -> None:
        self.controller.judging.draw(outlines=bool(index))
        self._show_layer()

    def _show_confidence(self, on: bool) -> None:
        layers = self.controller.layers
        if layers is not None:
            self.controller.guarded(layers.show_confidence, on)
