"""What the buttons of the Review section and their keys do with the prediction in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.gui.questions import confirmed
from napari_dinoaugseg.session.labels import Status

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_dinoaugseg.gui.controller import Controller


def accept_and_go_on(controller: Controller) -> None:
    """Accept the prediction of the slice in view and show the next slice to label or check."""
    session, here = controller.session, controller.current_slice
    if session is None:
        return
    controller.accept(here)
    if session.labels.status(here) is not Status.ACCEPTED:
        return  # why is said
    found = controller.suggestion()
    if found is not None:
        controller.go_to(found.index)
        accepted, name = session.study.slice_name(here), session.study.slice_name(found.index)
        words = f"{accepted} accepted; Ctrl+Z takes it back. {name}: {found.reason}."
        controller.suggested.emit(words[0].upper() + words[1:] if session.study.kind == "volume" else words)


def correct(controller: Controller, parent: QWidget | None = None) -> None:
    """Copy the prediction of the slice in view into the manual layer, with the brush at hand."""
    controller.flush()
    session, here = controller.session, controller.current_slice
    if session is None:
        return
    # Between scribbles there is room for the prediction; nothing is replaced there.
    painted = session.labels.status(here) is Status.MANUAL and here not in session.labels.open_slices
    if painted and session.labels.predicted(here) is not None:
        name = session.study.slice_name(here)
        text = f"You painted {name} by hand. Replace it by the prediction? Ctrl+Z brings it back."
        if not confirmed(parent, "Replace what you painted?", text):
            return
    controller.copy_to_manual(here, overwrite=painted)
    layers = controller.layers
    if layers is not None and layers.manual is not None and session.labels.status(here) is Status.MANUAL:
        controller.viewer.layers.selection.active = layers.manual
        if layers.manual.mode in ("pan_zoom", "transform"):
            layers.manual.mode = "paint"


def reject(controller: Controller) -> None:
    """Throw the prediction of the slice in view away."""
    if controller.session is not None:
        controller.reject(controller.current_slice)


def accept_certain(controller: Controller, confidence: float, parent: QWidget | None = None) -> None:
    """Accept all predictions with at least this confidence (0 to 1), once the person has confirmed how many."""
    controller.flush()
    session, indices = controller.session, controller.certain_slices(confidence)
    if session is None or not indices:
        return
    count = len(indices)
    unseen = sum(not session.labels.is_seen("predicted", index) for index in indices)
    slices = f"{count} slice" if count == 1 else f"{count} slices"
    if not unseen:
        looked = "You have looked at it." if count == 1 else "You have looked at all of them."
    elif unseen == count:
        looked = "Nobody has looked at it yet." if count == 1 else "Nobody has looked at any of them yet."
    else:
        looked = f"Nobody has looked at {unseen} of them yet."
    text = f"Accept {slices}? {looked} Training learns from what is accepted. Ctrl+Z takes it back."
    if confirmed(parent, f"Accept {slices}?", text):
        controller.accept_above(confidence)
