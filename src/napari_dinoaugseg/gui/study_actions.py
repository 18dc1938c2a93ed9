"""What a person can do about the study: open one, use a layer, choose plane, encoder and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import SeveralSeriesError, SeveralVolumesError, StudyError
from napari_dinoaugseg.gui.layers import StudyLayers
from napari_dinoaugseg.gui.metadata import shows_alike, study_in_plane, study_of_layer
from napari_dinoaugseg.gui.read_only import ReadOnlyLayers
from napari_dinoaugseg.gui.session_actions import Loaded, Looked, SessionActions, look_for_sessions
from napari_dinoaugseg.gui.work_actions import TRAINING, WorkActions
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study import Plane, Study, open_study

if TYPE_CHECKING:
    import napari


class StudyActions(WorkActions):
    """Part of the controller."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.sessions = SessionActions(self)

    def open_path(self, path: str | Path, *, background: bool = True, **options: Any) -> None:
        """Open a file, a DICOM folder or a folder of pictures; ``session_changed`` tells when it is there.

        Args:
            path: what to open.
            background: False opens it before returning.
            options: ``plane``, ``series``, ``component`` as of :func:`~napari_dinoaugseg.study.open_study`.
        """

        def failed(error: Exception) -> None:
            if isinstance(error, SeveralSeriesError | SeveralVolumesError):
                self.choice_needed.emit(path, error, options)
            else:
                self.tell_error(error)

        self._open(Path(path).name, lambda: open_study(path, **options), background=background, failed=failed)

    def open_sample(self) -> None:
        """Open the brain study that comes with the plugin."""
        from napari_dinoaugseg.study.sample import sample_study

        self._open("the sample", sample_study)

    def _open(
        self,
        name: str,
        opened: Callable[[], Study],
        *,
        background: bool = True,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Open a study and look for saved sessions of it: both read every pixel."""

        def work() -> tuple[Study, Looked]:
            study = opened()
            return study, look_for_sessions(study)

        def done(found: tuple[Study, Looked]) -> None:
            self.set_study(found[0], looked=found[1])

        if background:
            self.run_function(f"Opening {name}", work, done, failed)
        else:
            self.saving.secure()  # it may be the same study: then this session is one to go on with
            self.guarded(lambda: done(work()))

    def use_layer(self, layer: Any, plane: Plane | None = None) -> None:
        """Annotate an image layer that is in the viewer already."""
        self.guarded(lambda: self.set_study(study_of_layer(layer, plane), image=layer))

    def set_study(
        self,
        study: Study,
        image: napari.layers.Image | None = None,
        *,
        looked: Looked | None = None,
        keep_layers: bool = True,
    ) -> None:
        """Begin to annotate a study.

        Args:
            study: what is annotated.
            image: its layer, when it is in the viewer already; None makes one.
            looked: what is on disk of it; None looks in the background.
            keep_layers: whether layers with labels of the study before stay in the viewer, under its name.
        """
        session = self._new_session(study)
        session.labels.add_class()
        self._begin(session, image, StudyLayers, keep_layers=keep_layers)
        self.saving.follow(session)
        for sentence in study.notices:
            self.notice.emit(sentence)
        if looked is None:
            self.sessions.look(study)
        else:
            self.sessions.offer(looked)

    def _new_session(self, study: Study) -> Session:
        return Session(
            study,
            self.settings,
            device=self.device,
            weights=self.weights,
            scheduler=self.scheduler or None,
            say=self.say_from_work,
        )

    def resume(self, loaded: Loaded) -> None:
        """Go on with a session that was saved; only look at it where another window writes it.

        Raises:
            LabelError: it does not fit the study; nothing is changed then.
        """
        session = self._new_session(loaded.study)
        session.resume(loaded.snapshot)
        if not session.labels.classes:
            session.labels.add_class()
        self.settings, self.encoder_in_use = session.settings, None
        self.scribbles = bool(loaded.snapshot.view.get("scribbles"))
        kind = ReadOnlyLayers if loaded.store.reason else StudyLayers
        with self._image_for(loaded.study.plane) as image:
            self._begin(session, image, kind, keep_layers=False, read_only=loaded.store.reason)
        self.saving.follow(session, loaded.store)
        self.settings_changed.emit()

    def _begin(
        self,
        session: Session,
        image: napari.layers.Image | None,
        layers: type[StudyLayers],
        *,
        keep_layers: bool,
        read_only: str = "",
    ) -> None:
        self.stop()
        self.close_study(keep_layers=keep_layers)
        self.session, self.read_only = session, read_only
        self.layers = layers(self.viewer, session, image)
        self._follow_layers()
        self.layers.show()
        self.select_class(session.labels.classes[0].number)
        self.session_changed.emit()
        self.classes_changed.emit()
        self.labels_changed.emit()
        self.predictions_changed.emit(-1)
        self.slice_changed.emit(self.current_slice)

    def close_study(self, *, keep_layers: bool = True) -> None:
        """Leave the study: its labels are saved first.

        Args:
            keep_layers: whether its layers stay in the viewer, under its name; what is on disk needs none.
        """
        if self.session is None:
            return
        self.flush()
        self.saving.end()
        self.session.close()
        self.set_interrupted("")
        if self.layers is not None:
            ours = (self.layers.manual, self.layers.prediction, self.layers.confidence)
            self.layers.detach(keep_as=self.session.study.name)
            for layer in () if keep_layers else ours:
                if layer is not None and layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        self.session, self.layers, self.read_only = None, None, ""
        self.sessions.forget()
        self.session_changed.emit()

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
            raise StudyError(msg)
        encoder_before = (self.settings.encoder, self.device, self.weights)
        window_before = self.settings.window
        if self.session is not None:
            self.session.configure(settings, device=self.device, weights=self.weights, scheduler=self.scheduler or None)
        self.settings = settings
        if encoder_before[0] != settings.encoder:
            self.encoder_in_use = None
        if self.layers is not None and window_before != settings.window:
            self.layers.show_window()
        self.settings_changed.emit()

    def change_plane(self, plane: Plane) -> None:
        """Cut the volume along another plane; only while nothing is labelled, for labels belong to slices."""
        self.guarded(self._change_plane, plane)

    def _change_plane(self, plane: Plane) -> None:
        if self.session is None or self.layers is None or plane == self.session.study.plane:
            return
        self.flush()
        if self.session.labels.labelled:
            msg = "The plane cannot change any more: slices are labelled. Clear them first, or open the study again."
            raise StudyError(msg)
        study = study_in_plane(self.session.study, plane)
        with self._image_for(plane) as image:
            self.set_study(study, image=image)

    @contextmanager
    def _image_for(self, plane: Plane) -> Iterator[napari.layers.Image | None]:
        """The image in the viewer, when it shows the study as another plane needs it; else None, and it leaves.

        It leaves last: a viewer that is empty for a moment may be drawn half made.
        """
        image = self.layers.image if self.layers is not None else None
        fits = self.session is None or image is None or shows_alike(self.session.study, plane)
        yield image if fits else None
        if not fits and image is not None and image in self.viewer.layers:
            self.viewer.layers.remove(image)
