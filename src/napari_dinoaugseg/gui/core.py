"""What every part of the controller stands on: its state, its signals, and how errors become sentences."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_dinoaugseg.errors import DinoAugSegError, LabelError, SessionError
from napari_dinoaugseg.gui.guards import CanvasGuard, ViewGuard
from napari_dinoaugseg.gui.layers import CaseLayers
from napari_dinoaugseg.gui.preferences import preferences
from napari_dinoaugseg.gui.saving import Saving
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari

_log = logging.getLogger(__name__)


class ControllerCore:
    """State of the plugin in one viewer; see :class:`~napari_dinoaugseg.gui.controller.Controller`."""

    # What happens, for the sections to follow. All are emitted on the thread of the interface.
    session_changed = Signal()  # another case, or none
    labels_changed = Signal()  # manual or accepted labels of some slice
    predictions_changed = Signal(int)  # the slice whose prediction changed; -1 = many
    classes_changed = Signal()
    class_selected = Signal(int)
    slice_changed = Signal(int)
    tool_changed = Signal()  # another tool of napari, or another layer, is in use
    view_turned = Signal()  # napari's axes were rolled or transposed, or 2-D and 3-D switched
    settings_changed = Signal()
    window_changed = Signal()  # what the person looks through
    view_changed = Signal(str)  # why nothing can be painted in this view; empty when it can
    offered = Signal()  # an image came into the viewer, or left, that could be annotated
    layers_changed = Signal()  # a layer of ours was removed or made again
    work_started = Signal(str)  # what is being done, in words
    progressed = Signal(object)  # learning.events.Progress
    notice = Signal(str)  # the person should know this
    work_finished = Signal()
    interrupted_changed = Signal()  # whether a scheduler's loss ended the work
    failed = Signal(str)  # the sentence of an error; napari shows it too
    choice_needed = Signal(object, object, object)  # path, Several…Error: which one to open, options chosen so far
    said = Signal(str)  # what was just done, in one sentence
    suggested = Signal(str)  # why the slice in view is worth labelling next
    saving_changed = Signal()  # whether the labels are on disk
    sessions_changed = Signal()  # which saved sessions there are to go on with

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self._canvas_guard = CanvasGuard(viewer)
        self.session: Session | None = None
        self.layers: CaseLayers | None = None
        chosen = preferences()
        self.guard: ViewGuard | None = None
        self.settings = Settings(encoder=chosen.encoder)
        self.view_window = self.settings.window
        self.device = chosen.device
        self.scheduler = chosen.scheduler
        self.weights: Path | None = None
        self.scribbles = False
        self.selected_class = 1
        self.encoder_in_use: str | None = None
        self.encoder_expected: str | None = None
        self.users = 0
        self.closed = False
        self.read_only = ""
        self.saving = Saving(self)

    @property
    def current_slice(self) -> int:
        """The slice in view, by the case's numbering; 0 before a case is open."""
        return self.layers.current_slice if self.layers is not None else 0

    # --- safety -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take over at once what was painted in the last moments."""
        if self.layers is not None:
            self.layers.flush()

    def require_writable(self) -> None:
        """Refuse what would change a session that another window writes. Raises SessionError."""
        if self.read_only:
            raise SessionError(self.read_only)

    def require_view(self, index: int) -> None:
        """Refuse a change of the slice in view while the view shows something else. Raises LabelError."""
        if self.guard is not None and self.guard.reason and index == self.current_slice:
            raise LabelError(self.guard.reason)

    def tell_error(self, error: BaseException) -> None:
        """Say an error in the panel and as a napari notification; what nobody foresaw goes to the log as well."""
        if isinstance(error, DinoAugSegError):
            sentence = in_the_panels_words(str(error))
        else:
            _log.error("unforeseen error", exc_info=error)
            sentence = f"Something unforeseen went wrong ({type(error).__name__}: {error}). Your labels are safe."
        self.failed.emit(sentence)
        from napari.utils.notifications import show_error

        show_error(sentence)

    def guarded(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Do something; an error becomes a sentence. Returns whether it went well. What buttons are connected to."""
        try:
            action(*args, **kwargs)
        except Exception as error:  # a button must never end in a traceback
            self.tell_error(error)
            return False
        return True


def in_the_panels_words(sentence: str) -> str:
    """Sentences of the engine name options of the command; here the panel has them."""
    for words, ours in (
        ("--offline, DINOAUGSEG_OFFLINE, HF_HUB_OFFLINE", "Preferences, Work offline"),
        ("name it with --weights", "choose it in the Case section"),
        ("Name a file with --weights", "Choose a file in the Case section"),
        ("name a file with --weights", "choose a file in the Case section"),
        ("--weights FILE", "Case section"),
        ("(--model, --warm-start)", "(Apply a saved model…)"),
        ("--weights", "Case section"),
        ("use --encoder", "choose the encoder"),
        ("Choose --encoder", "Choose the encoder"),
        ("--encoder", "the encoder"),
    ):
        sentence = sentence.replace(words, ours)
    # The panel has the licence and its link beside the encoder.
    sentence = re.sub(r"\(downloads (\d+ MB) under the [^()]*\)", r"(a download of \1)", sentence)
    return re.sub(r" \(--[a-z][^)]*\)", "", sentence)  # what only the command can be told
