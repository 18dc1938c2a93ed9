"""What a person can do about the case: open one, use a layer, choose plane, encoder and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QTimer

from napari_dinoaugseg.case import Case, Plane, choose_window, open_case
from napari_dinoaugseg.case.intensity import opening_window
from napari_dinoaugseg.cluster import compute_for
from napari_dinoaugseg.errors import CaseError, SettingsError, SeveralSeriesError, SeveralVolumesError
from napari_dinoaugseg.gui.core import in_the_panels_words
from napari_dinoaugseg.gui.display import case_in_plane, case_of_layer, shows_alike
from napari_dinoaugseg.gui.guards import ViewGuard
from napari_dinoaugseg.gui.layers import CaseLayers
from napari_dinoaugseg.gui.saving import Loaded, Looked, SessionActions, look_for_sessions
from napari_dinoaugseg.gui.widgets import as_sentence
from napari_dinoaugseg.gui.work_actions import TRAINING, WorkActions
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.session import Session

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer


class CaseActions(WorkActions):
    """Part of the controller."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.sessions = SessionActions(self)
        self.offer: Image | None = None
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        images = [layer for layer in viewer.layers if isinstance(layer, Image)]
        if len(images) == 1:
            QTimer.singleShot(0, lambda: self._offer(images[0]))

    def open_path(self, path: str | Path, *, background: bool = True, **options: Any) -> None:
        """Open a file, a DICOM folder or a folder of pictures; ``session_changed`` tells when it is there.

        Args:
            path: what to open.
            background: False opens it before returning.
            options: ``plane``, ``series``, ``component`` as of :func:`~napari_dinoaugseg.case.open_case`.
        """

        def failed(error: Exception) -> None:
            if isinstance(error, SeveralSeriesError | SeveralVolumesError):
                self.choice_needed.emit(path, error, options)
            else:
                self.tell_error(error)

        self._open(Path(path).name, lambda: open_case(path, **options), background=background, failed=failed)

    # --- images that come into the viewer by another way -----------------------------------------------------------

    def take_offer(self) -> None:
        """Annotate the image that was offered."""
        layer, self.offer = self.offer, None
        self.offered.emit()
        self.use_layer(layer)

    def decline_offer(self) -> None:
        """Leave the image that was offered as it is."""
        self.offer = None
        self.offered.emit()

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Image):
            # Later: by then it is known whether it is one of ours.
            QTimer.singleShot(0, lambda: self._offer(layer))

    def _on_removed(self, event: Any) -> None:
        if event.value is self.offer and self.offer is not None:
            self.decline_offer()

    def _offer(self, layer: Image) -> None:
        """Ask whether to annotate an image that somebody dropped, opened or added."""
        ours = self.layers is not None and layer in self.layers.own
        if self.closed or ours or layer not in self.viewer.layers or layer.multiscale or layer.ndim not in (2, 3):
            return
        self.offer = layer
        self.offered.emit()

    def open_sample(self) -> None:
        """Open the brain case that comes with the plugin, with its two classes."""
        from napari_dinoaugseg.case.array import CLASS_NAMES, sample_case

        def done(case: Case) -> None:
            book = self.session.labels if self.session is not None and self.session.case is case else None
            if book is None or book.labelled:
                return
            for number, name in CLASS_NAMES.items():
                if number in {entry.number for entry in book.classes}:
                    book.rename_class(number, name)
                else:
                    book.add_class(name, number)
            book.forget_history()  # the sample comes with its classes
            self._classes_were_changed()

        self._open("the sample", sample_case, then=done)

    def _open(
        self,
        name: str,
        opened: Callable[[], Case],
        *,
        background: bool = True,
        failed: Callable[[Exception], None] | None = None,
        then: Callable[[Case], None] = lambda _: None,
    ) -> None:
        """Open a case and look for saved sessions of it: both read every pixel."""

        def work() -> tuple[Case, Looked]:
            case = opened()
            return case, look_for_sessions(case)

        def done(found: tuple[Case, Looked]) -> None:
            self.set_case(found[0], looked=found[1])
            then(found[0])

        if background:
            self.run_function(f"Opening {name}", work, done, failed)
        else:
            self.saving.secure()  # it may be the same case: then this session is one to go on with
            self.guarded(lambda: done(work()))

    def use_layer(self, layer: Any, plane: Plane | None = None) -> None:
        """Annotate an image layer that is in the viewer already."""
        self.guarded(lambda: self.set_case(case_of_layer(layer, plane), image=layer))

    def set_case(
        self,
        case: Case,
        image: Image | None = None,
        *,
        looked: Looked | None = None,
    ) -> None:
        """Begin to annotate a case.

        Args:
            case: what is annotated.
            image: its layer, when it is in the viewer already; None makes one.
            looked: what is on disk of it; None looks in the background.
        """
        window = opening_window(case, self.settings.window)
        self.settings = self.settings.with_changes(window=window)
        session = self._new_session(case)
        session.labels.add_class()
        self._begin(session, image, window)
        self.saving.follow(session)
        for notice in case.notices:
            self.notice.emit(as_sentence(in_the_panels_words(notice)))
        if looked is None:
            self.sessions.look(case)
        else:
            self.sessions.offer(looked)

    def _new_session(self, case: Case) -> Session:
        return Session(case, self.settings, self._compute_config(), make_compute=compute_for, notify=self.say_from_work)

    def _compute_config(self) -> ComputeConfig:
        return ComputeConfig(self.device, self.weights, scheduler=self.scheduler or None)

    def resume(self, loaded: Loaded) -> None:
        """Go on with a session that was saved; only look at it where another window writes it.

        Raises:
            LabelError: it does not fit the case; nothing is changed then.
        """
        session = self._new_session(loaded.case)
        session.resume(loaded.snapshot)
        if not session.labels.classes:
            session.labels.add_class()
        self.settings, self.encoder_in_use = session.settings, None
        self.scribbles = bool(loaded.snapshot.view.get("scribbles"))
        window = _window_in(loaded.snapshot.view, loaded.case) or self.settings.window
        self._begin(session, self._image_for(loaded.case.plane), window, read_only=loaded.store.reason)
        self.saving.follow(session, loaded.store)
        self.settings_changed.emit()

    def _begin(
        self,
        session: Session,
        image: Image | None,
        window: str,
        *,
        read_only: str = "",
    ) -> None:
        """Put a case in the place of the one before: its layers come, then those of the one before leave.

        In this order, for a viewer that is empty for a moment may be drawn half made.
        """
        self.stop()
        leaving = [layer for layer in self._leave_case() if layer is not image]
        for layer in leaving:
            layer.name = f"{layer.name} (leaving)"  # else napari numbers the new layers
        self.session, self.read_only, self.view_window = session, read_only, window
        self.layers = CaseLayers(self.viewer, session, image, window, read_only=bool(read_only))
        self._follow_layers()
        self.layers.window_moved.connect(self._on_window_moved)
        self.layers.show()
        remove_layers(self.viewer, leaving)
        hidden = self.layers.hide_others()
        self.layers.fit()
        self.guard = ViewGuard(self.viewer, self.layers)
        self.guard.changed.connect(lambda reason: self.view_changed.emit(reason))
        self.guard.refused.connect(lambda reason: self.notice.emit(reason))
        self.select_class(session.labels.classes[0].number)
        self.session_changed.emit()
        self.classes_changed.emit()
        self.labels_changed.emit()
        self.predictions_changed.emit(-1)
        self.slice_changed.emit(self.current_slice)
        if image is not None and image is self.offer:
            self.decline_offer()
        if hidden:
            self.notice.emit(
                f"Hidden, for they are not of {session.case.name}: {', '.join(hidden)}. "
                "The eye in the layer list shows them again."
            )

    def close_case(self) -> None:
        """Leave the case: its labels are saved, and its layers leave the viewer."""
        remove_layers(self.viewer, self._leave_case())
        self.session_changed.emit()

    def _leave_case(self) -> list[Layer]:
        """Save the labels of the case and let go of it; returns its layers, which are to leave the viewer."""
        session, layers, guard = self.session, self.layers, self.guard
        if session is None:
            return []
        self.flush()
        saved = self.saving.end()
        session.close()
        self.set_interrupted("")
        if guard is not None:
            guard.close()
        leaving = []
        if layers is not None:
            leaving = layers.detach(keep_labels_as="" if saved else f"{session.case.name}: labels, not saved")
        self.session, self.layers, self.guard, self.read_only = None, None, None, ""
        self.sessions.forget()
        return leaving

    def restore_layers(self) -> None:
        """Bring back layers that were removed from the viewer, with all labels."""
        if self.layers is not None:
            self.layers.show()
            self.select_class(self.selected_class)
            self.layers_changed.emit()

    # --- settings ---------------------------------------------------------------------------------------------------

    def change_settings(self, **changes: Any) -> None:
        """Change how to learn; unknown names or values out of range are said, and change nothing."""
        self.guarded(lambda: self._configure(self.settings.with_changes(**changes)))

    def use_preset(self, preset: str) -> None:
        """Take over a preset; encoder, window and seed stay."""
        kept = {"encoder": self.settings.encoder, "window": self.settings.window, "seed": self.settings.seed}
        self.guarded(lambda: self._configure(Settings.of_preset(preset, **kept)))

    def use_scheduler(self, address: str) -> None:
        """Choose on what machine to compute: that of a worker of a Dask scheduler; empty = this computer."""
        before, self.scheduler = self.scheduler, address.strip()
        if not self.guarded(self._configure, self.settings):
            self.scheduler = before
            return
        self.encoder_in_use = None
        self.set_interrupted("")

    def compute_here(self) -> None:
        """Leave the scheduler, and begin here again what its loss ended."""
        begin = self.train if self.interrupted == TRAINING else self.predict
        self.use_scheduler("")
        begin()

    def use_device(self, device: str) -> None:
        """Choose what computes."""
        self.device = device
        self.guarded(self._configure, self.settings)

    def use_weights(self, path: Path | None) -> None:
        """Choose a file with encoder weights; None = where they come from without one."""
        self.weights = path
        self.guarded(self._configure, self.settings)

    def _configure(self, settings: Settings) -> None:
        if self.busy:
            msg = "Settings can be changed when the work in the background is done. Press Stop first."
            raise CaseError(msg)
        encoder_before, windows = self.settings.encoder, (self.settings.window, self.view_window)
        if self.layers is not None and settings.window not in windows and self.model_sees_the_view:
            self.layers.show_window(settings.window)
            self.view_window = settings.window
            self.window_changed.emit()
        if self.session is not None:
            self.session.configure(settings, self._compute_config())
        self.settings = settings
        if encoder_before != settings.encoder:
            self.encoder_in_use = None
        self.settings_changed.emit()

    # --- windows ----------------------------------------------------------------------------------------------------

    @property
    def model_sees_the_view(self) -> bool:
        """Whether the first training will see the window that is looked through: until there is a model, it does."""
        return self.session is None or not (self.busy or self.session.is_trained)

    def view_through(self, window: str) -> None:
        """Look through a window: ``auto``, ``percentiles``, a name of a CT window, or ``low,high``.

        A trained model, or one that is being trained, goes on seeing the window that was chosen at Train.
        """
        self.guarded(self._view_through, window)

    def _view_through(self, window: str) -> None:
        if self.layers is not None:
            self.layers.show_window(window)
        self._view_is(window)

    def _view_is(self, window: str) -> None:
        """The image is shown through this window now."""
        self.view_window = window
        if self.model_sees_the_view and window != self.settings.window:
            self._configure(self.settings.with_changes(window=window))
        self.window_changed.emit()

    def _on_window_moved(self, low: float, high: float) -> None:
        self.guarded(self._view_is, f"{low:g},{high:g}")

    def change_plane(self, plane: Plane) -> None:
        """Cut the volume along another plane; only while nothing is labelled, for labels belong to slices."""
        self.guarded(self._change_plane, plane)

    def _change_plane(self, plane: Plane) -> None:
        if self.session is None or self.layers is None or plane == self.session.case.plane:
            return
        self.flush()
        if self.session.labels.labelled:
            msg = "The plane cannot change any more: slices are labelled. Clear them first, or open the case again."
            raise CaseError(msg)
        case = case_in_plane(self.session.case, plane)
        window = self.view_window
        self.set_case(case, image=self._image_for(plane))
        self._view_through(window)

    def _image_for(self, plane: Plane) -> Image | None:
        """The image in the viewer, when it shows the case as another plane needs it."""
        image = self.layers.image if self.layers is not None else None
        fits = self.session is None or image is None or shows_alike(self.session.case, plane)
        return image if fits else None


def _window_in(view: Mapping[str, Any], case: Case) -> str | None:
    """The window that a saved session was looked at through; None where it is not known."""
    window = view.get("window")
    if not isinstance(window, str):
        return None
    try:
        choose_window(case, window)
    except SettingsError:
        return None
    return window


def remove_layers(viewer: napari.Viewer, layers: Sequence[Layer]) -> None:
    """Remove layers from the viewer."""
    for layer in layers:
        if layer in viewer.layers:
            viewer.layers.remove(layer)
