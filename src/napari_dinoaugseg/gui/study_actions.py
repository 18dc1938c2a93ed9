"""What a person can do about the study: open one, use a layer, choose plane, encoder and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinoaugseg.errors import SeveralSeriesError, SeveralVolumesError, StudyError
from napari_dinoaugseg.gui.layers import StudyLayers
from napari_dinoaugseg.gui.metadata import spacing_in, study_of
from napari_dinoaugseg.gui.work_actions import WorkActions
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.study import Plane, Study, open_study

if TYPE_CHECKING:
    import napari


class StudyActions(WorkActions):
    """Part of the controller."""

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self._reopen: Callable[[Plane | None], Study] | None = None
        self._image: Any = None

    def open_path(self, path: str | Path, *, background: bool = True, **options: Any) -> None:
        """Open a file, a DICOM folder or a folder of pictures; ``session_changed`` tells when it is there.

        Args:
            path: what to open.
            background: False opens it before returning.
            options: ``plane``, ``series``, ``component`` as of :func:`~napari_dinoaugseg.study.open_study`.
        """

        def reopen(plane: Plane | None) -> Study:
            return open_study(path, **{**options, **({"plane": plane} if plane else {})})

        def done(study: Study) -> None:
            self._reopen = reopen
            self.set_study(study)

        def failed(error: Exception) -> None:
            if isinstance(error, SeveralSeriesError | SeveralVolumesError):
                self.choice_needed.emit(path, error)
            else:
                self.tell_error(error)

        if background:
            self.run_function(f"Opening {Path(path).name}", lambda: open_study(path, **options), done, failed)
        else:
            self.guarded(lambda: done(open_study(path, **options)))

    def open_sample(self) -> None:
        """Open the brain study that comes with the plugin."""
        from napari_dinoaugseg.study.sample import sample_study

        self.run_function("Opening the sample", sample_study, self.set_study)

    def use_layer(self, layer: Any, plane: Plane | None = None) -> None:
        """Annotate an image layer that is in the viewer already."""
        self.guarded(self._use_layer, layer, plane)

    def _use_layer(self, layer: Any, plane: Plane | None) -> None:
        from napari.layers import Image

        if layer is None:
            msg = "There is no image yet. Open a file or folder, or drop an image into the viewer."
            raise StudyError(msg)
        if not isinstance(layer, Image):
            msg = f"The layer '{layer.name}' is no image. Select an image layer, or open a file."
            raise StudyError(msg)
        made = study_of(layer)
        if made is not None and plane in (None, made.plane):
            study = made
        else:
            from napari_dinoaugseg.study.array import study_from_array

            study = study_from_array(
                layer.data,
                spacing=spacing_in(layer.scale, layer.units),
                name=layer.name,
                is_rgb=bool(layer.rgb),
                plane=plane,
            )
        self._reopen = None
        self.set_study(study, image=layer)

    def set_study(self, study: Study, image: napari.layers.Image | None = None) -> None:
        """Begin to annotate a study.

        Args:
            study: what is annotated.
            image: its layer, when it is in the viewer already; None makes one.
        """
        self.stop()
        self.close_study()
        self.session = Session(study, self.settings, device=self.device, weights=self.weights, say=self.say_from_work)
        self.layers = StudyLayers(self.viewer, self.session, image)
        self.session.labels.add_class()
        self._follow_layers()
        self.layers.show()
        self.select_class(self.session.labels.classes[0].number)
        self.session_changed.emit()
        self.classes_changed.emit()
        self.labels_changed.emit()
        self.predictions_changed.emit(-1)
        self.slice_changed.emit(self.current_slice)
        for sentence in study.notices:
            self.notice.emit(sentence)

    def close_study(self) -> None:
        """Leave the study. Its layers stay in the viewer, under its name: nothing painted is thrown away."""
        if self.session is None:
            return
        self.flush()
        if self.layers is not None:
            self.layers.detach(keep_as=self.session.study.name)
        self.session, self.layers = None, None
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

    def use_device(self, device: str) -> None:
        """Choose where to compute."""
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
            self.session.configure(settings, device=self.device, weights=self.weights)
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
        if self._reopen is not None:
            reopen, image = self._reopen, self.layers.image
            study = reopen(plane)
            self.set_study(study, image=image)
            self._reopen = reopen
        elif self.layers.image is not None:
            self._use_layer(self.layers.image, plane)
