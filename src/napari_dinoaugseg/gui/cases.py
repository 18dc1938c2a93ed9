"""Opening, resuming and closing a case."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari.layers import Image
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_dinoaugseg.case import Case, Plane, choose_window, open_case
from napari_dinoaugseg.case.intensity import opening_window
from napari_dinoaugseg.case.volume import VolumeCase
from napari_dinoaugseg.errors import CaseError, LongVideoError, SettingsError, SeveralSeriesError, SeveralVolumesError
from napari_dinoaugseg.gui.canvas import one_drawing
from napari_dinoaugseg.gui.core import Change, guarded
from napari_dinoaugseg.gui.display import (
    awaits_case,
    case_in_plane,
    case_of_layer,
    case_of_layers,
    remove_layers,
    set_unit,
    shows_alike,
    shows_colour,
)
from napari_dinoaugseg.gui.jobs import OPENING
from napari_dinoaugseg.gui.layers import CaseLayers, LayersAhead, Spare, spare_layers
from napari_dinoaugseg.gui.saving import Loaded, Looked, look_for_sessions
from napari_dinoaugseg.gui.view import ViewGuard
from napari_dinoaugseg.gui.widgets import Inbox, as_sentence
from napari_dinoaugseg.gui.words import counted, in_words
from napari_dinoaugseg.session.histories import Histories

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_dinoaugseg.gui.controller import Controller
    from napari_dinoaugseg.session.index import Snapshot
    from napari_dinoaugseg.session.labels import Labels
    from napari_dinoaugseg.session.session import Session

_PATIENCE = 10.0  # s that a case which is read waits for its layers

T = TypeVar("T")


class Cases:
    """The case that a viewer annotates.

    Attributes:
        offer: an image that was added to the viewer and could be annotated; None if there is none.
        options: `series`, `component`, `every` and names of sequences with which the open case was opened.
        source: the path with which it was opened, or those of its sequences; None if it came from a layer or a project.
    """

    choice_needed = Signal(object, object, object)  # path, the error that asks for a choice, options so far

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.offer: Image | None = None
        self._histories = Histories()
        self._ahead: LayersAhead | None = None  # while the first case is read
        self._cases_read = Inbox(self._on_read)
        self.options: dict[str, Any] = {}
        self.source: Path | list[Path] | None = None
        layers = controller.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        images = [layer for layer in layers if isinstance(layer, Image)]
        if len(images) == 1:
            QTimer.singleShot(0, lambda: self._make_offer(images[0]))

    # --- opening ----------------------------------------------------------------------------------------------------

    def open_path(
        self, path: str | Path | list[Path], *, background: bool = True, keep_labels: bool = False, **options: Any
    ) -> None:
        """Open a file, a DICOM folder or a folder of pictures, or the sequences of one case.

        Args:
            path: what to open.
            background: False opens it before returning.
            keep_labels: whether the case has the slices of the open one, and takes its labels along.
            options: ``plane``, ``series``, ``component``, ``every`` as in :func:`~napari_dinoaugseg.case.open_case`.
        """

        def failed(error: Exception) -> None:
            if isinstance(error, SeveralSeriesError | SeveralVolumesError | LongVideoError):
                self.choice_needed.emit(path, error, {**options, "keep_labels": keep_labels})
            else:
                self.controller.show_error(error)

        def then(case: Case) -> None:
            self.options = {name: value for name, value in options.items() if name != "plane"}
            self.source = path if isinstance(path, list) else Path(path)
            if isinstance(path, list):
                self.options["sequences"] = tuple(case.sequences)

        name = Path(path[0] if isinstance(path, list) else path).name
        self._open(
            name,
            lambda: open_case(path, **options),
            background=background,
            failed=failed,
            then=then,
            keep_labels=keep_labels,
        )

    @guarded
    def add_sequence(self, path: Path, *, background: bool = True) -> None:
        """Open the case again with a further sequence, with the labels and measures that it has.

        Raises:
            CaseError: the case cannot have another one now.
        """
        controller, session = self.controller, self.controller.session
        if session is None:
            msg = "Open the first sequence of the case first; it gives the grid of the mask."
            raise CaseError(msg)
        if controller.project.held is not None:
            msg = "The sequences of a case in a project are fixed. Open the case by itself, with all its sequences."
            raise CaseError(msg)
        source = session.case.path if self.source is None and session.case.path.exists() else self.source
        if source is None or session.case.kind != "volume":
            msg = f"{session.case.name}: a sequence is added to a volume that was opened from its file or folder."
            raise CaseError(msg)
        files = [*source, path] if isinstance(source, list) else [source, path]
        series = self.options.get("series")
        chosen = [series] if series is None or isinstance(series, str) else list(series)
        self.open_path(
            files,
            background=background,
            keep_labels=True,
            series=[*chosen, None],
            component=self.options.get("component"),
            plane=session.case.plane,
        )

    def open_sample(self) -> None:
        """Open the brain case that comes with the plugin, with its classes."""
        from napari_dinoaugseg.case.array import CLASS_NAMES, sample_case

        def done(case: Case) -> None:
            session = self.controller.session
            book = session.labels if session is not None and session.case is case else None
            if book is None or book.labelled:
                return
            for number, name in CLASS_NAMES.items():
                if number in {entry.number for entry in book.classes}:
                    book.rename_class(number, name)
                else:
                    book.add_class(name, number)
            book.forget_history()  # adding these classes cannot be undone
            self.controller.labels.show_classes()

        self._open("the sample", sample_case, then=done)

    def label_sample(self) -> None:
        """Label five slices of the sample with its true tissue, in one undoable step."""
        from napari_dinoaugseg.case.array import LABELLED_SLICES, sample_labels

        controller, session = self.controller, self.controller.session
        if session is None or not isinstance(session.case, VolumeCase):
            return
        case = session.case

        def done(labels: dict[int, Labels]) -> None:
            if controller.session is not session:
                return
            controller.flush()
            free = {index: found for index, found in labels.items() if session.labels.manual(index) is None}
            session.labels.label(free)
            controller.labels.show(sorted(free))
            controller.view.go_to(LABELLED_SLICES[len(LABELLED_SLICES) // 2])
            controller.notify(
                f"{len(LABELLED_SLICES)} slices are labelled with the known tissue; Ctrl+Z undoes it. "
                "Press Train, and look at the slices between them."
            )

        controller.jobs.run("Labelling five slices", lambda: sample_labels(case), done)

    @guarded
    def use_layer(self, layer: Any, plane: Plane | None = None) -> None:
        """Annotate an image layer of the viewer."""
        self.begin(case_of_layer(layer, plane), image=layer)

    @guarded
    def use_layers(self, layers: list[Image]) -> None:
        """Annotate several image layers as the sequences of one case, in a layer of its own that shows them in turn."""
        self.begin(case_of_layers(layers))

    def _open(
        self,
        name: str,
        opened: Callable[[], Case],
        *,
        background: bool = True,
        failed: Callable[[Exception], None] | None = None,
        then: Callable[[Case], None] = lambda _: None,
        keep_labels: bool = False,
    ) -> None:
        """Open a case and look for its saved sessions; both read all pixels. Between the two it is shown, if alone."""
        chosen = self.controller.setup.settings.window

        def read() -> tuple[Case, Looked]:
            case = opened()
            window = opening_window(case, chosen)
            choose_window(case, window)  # the case remembers its intensities: the interface need not compute them
            self.show_ahead(case, window)
            return case, look_for_sessions(case)

        def done(found: tuple[Case, Looked]) -> None:
            if keep_labels:
                self._begin_with_labels(found[0], found[1])
            else:
                self.begin(found[0], looked=found[1])
            then(found[0])

        if background:
            self.run_opening(name, read, done, failed)
        else:
            self.controller.saving.secure()  # so that, if it is the same case, this session can be resumed
            self.controller.guarded(lambda: done(read()))

    def run_opening(
        self, name: str, read: Callable[[], T], done: Callable[[T], None], failed: Callable[[Exception], None] | None
    ) -> None:
        """Read a case in the background. The layers of the first one are made meanwhile, and waited for.

        Args:
            name: of the case.
            read: called in the thread of the job; may show the case with :meth:`show_ahead`.
            done: as for `Jobs.run`.
            failed: likewise.
        """
        controller, ready = self.controller, threading.Event()

        def work() -> T:
            found = read()
            ready.wait(_PATIENCE)
            return found

        controller.jobs.run(f"{OPENING} {name}", work, done, failed)
        is_first = controller.session is None and not controller.viewer.layers
        if controller.jobs.busy and is_first and self._ahead is None:
            self._ahead = LayersAhead(controller.viewer, name, ready)
        else:
            ready.set()

    def show_ahead(self, case: Case, window: str) -> None:
        """Show a case that is read in the layers that are made ahead, if they are; called in the thread of the job."""
        self._cases_read.send(case, window)

    def _on_read(self, case: Case, window: str) -> None:
        if self._ahead is not None:
            self._ahead.show(case, window)

    def follow(self, what: Change) -> None:
        """Remove layers that wait for a case once it is known that it does not open."""
        if what & Change.WORK and self._ahead is not None:
            QTimer.singleShot(0, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        if self._ahead is not None and not self.controller.jobs.busy and not self.controller.closed:
            ahead, self._ahead = self._ahead, None
            ahead.discard()

    def _spare(self, *, of_another: bool = True) -> Spare | None:
        """The layers for the next case: made ahead, or those of the case before if it is replaced by another one."""
        ahead, self._ahead = self._ahead, None
        made = ahead.take() if ahead is not None else None
        return (spare_layers(self.controller.layers) if of_another else None) or made

    # --- images added to the viewer by other means ------------------------------------------------------------------

    def take_offer(self) -> None:
        """Annotate the offered image."""
        layer = self.offer
        self.decline_offer()
        self.use_layer(layer)

    def decline_offer(self) -> None:
        """Withdraw the offer."""
        self.offer = None
        self.controller.touch(Change.OFFER)

    def _make_offer(self, layer: Image) -> None:
        """Offer to annotate an image that was dropped, opened or added."""
        controller = self.controller
        ours = controller.layers is not None and layer in controller.layers.own
        gone = controller.closed or layer not in controller.viewer.layers
        if ours or gone or awaits_case(layer) or layer.multiscale or layer.ndim not in (2, 3):
            return
        self.offer = layer
        controller.touch(Change.OFFER)

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Image):
            # Deferred until it is known whether the layer belongs to a case.
            QTimer.singleShot(0, lambda: self._make_offer(layer))

    def _on_removed(self, event: Any) -> None:
        if event.value is self.offer and self.offer is not None:
            self.decline_offer()

    # --- starting ---------------------------------------------------------------------------------------------------

    def begin(
        self,
        case: Case,
        image: Image | None = None,
        *,
        looked: Looked | None = None,
        labels: Snapshot | None = None,
    ) -> None:
        """Start a new session of a case by itself; the previous case is saved and closed, and so is a project.

        Args:
            case: the case to annotate.
            image: its layer if it is already in the viewer; None creates one.
            looked: its saved sessions; None looks for them in the background.
            labels: of another case with the same slices; its model is left behind.

        Raises:
            LabelError: the labels do not fit the case; nothing is changed.
        """
        controller, setup = self.controller, self.controller.setup
        window = opening_window(case, setup.settings.window)
        setup.settings = setup.settings.with_changes(window=window)
        session = setup.new_session(case)
        if labels is not None:
            session.resume(replace(labels, settings=session.settings, history=(), model=None, model_settings=None))
        if not session.labels.classes:
            session.labels.add_class()
        self.options, self.source = {}, None
        with one_drawing(controller.viewer):
            self._begin(session, image, window, spare=self._spare() if image is None else None)
        controller.project.leave_for(case)
        controller.saving.keep(session)
        for notice in case.notices:
            controller.notify(as_sentence(in_words(notice)), "notice")
        if looked is None:
            controller.sessions.look(case)
        else:
            controller.sessions.offer(looked)

    def _begin_with_labels(self, case: Case, looked: Looked) -> None:
        """Start a session of a case that has the slices of the open one, with its labels and measures."""
        controller, before, index = self.controller, self.controller.session, self.controller.current_slice
        controller.flush()
        if before is None:
            self.begin(case, looked=looked)
            return
        name, count = before.case.name, len(before.labels.labelled)
        self.begin(case, looked=looked, labels=before.snapshot())
        controller.view.go_to(index)
        if not count and not before.measures:
            return
        controller.touch(Change.LABELS)  # they are of a new session, which is to be saved
        controller.notify(
            f"The labels of {counted(count, 'slice')} were taken along, without the model: train it on all sequences. "
            f"{name} alone keeps its own labels."
        )

    def resume(self, loaded: Loaded) -> None:
        """Resume a saved session, read-only if another window writes it.

        Raises:
            LabelError: the session does not fit the case; nothing is changed.
        """
        controller, setup = self.controller, self.controller.setup
        session = setup.new_session(loaded.case, loaded.encoder)
        session.resume(loaded.snapshot)
        if not session.labels.classes:
            session.labels.add_class()
        setup.settings, setup.encoder_in_use = session.settings, None
        controller.labels.scribbles = bool(loaded.snapshot.view.get("scribbles"))
        window = _window_in(loaded.snapshot.view, loaded.case) or setup.settings.window
        # A case of a project is another patient than the one in view.
        image = self._image_for(loaded.case.plane) if loaded.save is None else None
        spare = self._spare(of_another=loaded.save is not None)
        read_only = loaded.read_only or loaded.store.reason
        with one_drawing(controller.viewer):
            self._begin(session, image, window, read_only=read_only, spare=spare)
        controller.saving.keep(session, loaded.store, loaded.save)
        if not read_only:  # a visit to look leaves what can be undone for later
            self._histories.resume((loaded.store.folder, session.case.plane), session.labels)
        controller.touch(Change.SETTINGS)

    @guarded
    def change_plane(self, plane: Plane) -> None:
        """Slice the volume along another plane; only while nothing is labelled, because labels belong to slices."""
        controller = self.controller
        if controller.session is None or controller.layers is None or plane == controller.session.case.plane:
            return
        if controller.project.held is not None:
            msg = "The plane of a case in a project is fixed. To slice this volume in another plane, open it by itself."
            raise CaseError(msg)
        controller.flush()
        if controller.session.labels.labelled:
            msg = "The plane cannot change any more: slices are labelled. Clear them first, or open the case again."
            raise CaseError(msg)
        if controller.session.measures:
            msg = "The plane cannot change any more: slices are measured. Remove the measures first (Measure section)."
            raise CaseError(msg)
        case, options, source = case_in_plane(controller.session.case, plane), self.options, self.source
        window = controller.view.sequences.first_window
        self.begin(case, image=None if spare_layers(controller.layers) is not None else self._image_for(plane))
        self.options, self.source = options, source
        controller.view.look_through(window)

    def _begin(
        self, session: Session, image: Image | None, window: str, *, read_only: str = "", spare: Spare | None = None
    ) -> None:
        """Replace the previous case.

        Its layers are removed only after those of the new one are added, because napari may draw an empty viewer in an
        inconsistent state.
        """
        controller = self.controller
        controller.jobs.stop()
        if image is not None:
            controller.view.sequences.show(0)  # the layer may show another sequence
        leaving = [layer for layer in self._leave(hand_over=spare is not None) if layer is not image]
        if spare is not None:
            if spare.is_ahead:
                leaving.extend(spare.layers)
            # Labels that could not be saved stay in the viewer.
            if not set(spare.layers) <= set(leaving) or spare.image.rgb != shows_colour(session.case):
                if spare.orientation is not None:
                    spare.orientation.end()
                spare = None
            else:
                leaving = [layer for layer in leaving if layer not in spare.layers]
        for layer in leaving:
            layer.name = f"{layer.name} (leaving)"  # else napari numbers the new layers
        handed_on = [layer for layer in spare.layers if layer is not spare.image] if spare is not None else []
        set_unit([*leaving, *handed_on], session.case)
        controller.session, controller.read_only, controller.view.window = session, read_only, window
        made = controller.layers = CaseLayers(
            controller.viewer, session, image, window, read_only=bool(read_only), spare=spare
        )
        controller.labels.follow_layers()
        made.window_moved.connect(controller.view.on_window_moved)
        made.show()
        remove_layers(controller.viewer, leaving)
        hidden = made.hide_others()
        if spare is not None and spare.case is session.case:  # in view already, and the person may have moved
            made.go_to(spare.index)
        else:
            made.go_to(session.case.n_slices // 2)
            made.fit()
        guard = controller.guard = ViewGuard(controller.viewer, made)
        guard.changed.connect(lambda _: controller.touch(Change.VIEW))
        guard.refused.connect(lambda reason: controller.notify(reason, "notice"))
        controller.labels.select_class(session.labels.classes[0].number)
        controller.notify("", "clear")
        controller.touch(Change.SESSION | Change.CLASSES | Change.LABELS | Change.PREDICTIONS | Change.SLICE)
        if image is not None and image is self.offer:
            self.decline_offer()
        if hidden:
            controller.notify(
                f"Hidden, because they do not belong to {session.case.name}: {', '.join(hidden)}. "
                "The eye in the layer list shows them again.",
                "notice",
            )

    def _image_for(self, plane: Plane) -> Image | None:
        """The image layer if it also fits the display of the case in another plane."""
        layers, session = self.controller.layers, self.controller.session
        image = layers.image if layers is not None else None
        fits = session is None or image is None or shows_alike(session.case, plane)
        return image if fits else None

    # --- closing ----------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Disconnect from the viewer."""
        if self._ahead is not None:
            self._ahead.stop()
        events = self.controller.viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_removed)

    def close(self) -> None:
        """Close the case: save its labels and remove its layers from the viewer."""
        remove_layers(self.controller.viewer, self._leave())
        self.controller.notify("", "clear")
        self.controller.touch(Change.SESSION)

    def _leave(self, *, hand_over: bool = False) -> list[Layer]:
        """Save the labels of the case and detach from it; returns its layers, which are to be removed.

        ``hand_over`` as for :meth:`CaseLayers.detach`.
        """
        controller = self.controller
        session, layers = controller.session, controller.layers
        if session is None:
            return []
        controller.surfaces.leave()
        if layers is not None:
            layers.painting.end_stroke()
        controller.flush()
        controller.ruler.leave()
        folder = controller.saving.folder
        saved = controller.saving.end()
        if saved and folder is not None:
            self._histories.keep((folder, session.case.plane), session.labels)
        controller.project.left()
        session.close()
        controller.jobs.set_interrupted("")
        if controller.guard is not None:
            controller.guard.close()
        leaving = []
        if layers is not None:
            kept = "" if saved else f"{session.case.name}: labels, not saved"
            leaving = layers.detach(keep_labels_as=kept, hand_over=hand_over)
        controller.session, controller.layers, controller.guard, controller.read_only = None, None, None, ""
        controller.sessions.forget()
        return leaving


def _window_in(view: Mapping[str, Any], case: Case) -> str | None:
    """The intensity window of a saved view; None if it is missing or invalid."""
    window = view.get("window")
    if not isinstance(window, str):
        return None
    try:
        choose_window(case, window)
    except SettingsError:
        return None
    return window
