"""The session: everything a person can do with a case, in the order in which they do it.

The command line and the panel are thin on top of it. Neither PyTorch nor any widget appears in its interface; the
engine is loaded when training or prediction first needs it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.errors import CheckpointError, ClusterError, LabelError, Message, TrainingError
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction, Report, ignore, nearest_first
from napari_dinoaugseg.learning.query import Suggestion, suggest
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.agreement import agreement
from napari_dinoaugseg.session.compute import Compute, ComputeConfig, MakeCompute, Notify
from napari_dinoaugseg.session.index import Round, Snapshot
from napari_dinoaugseg.session.labels import (
    UNKNOWN,
    LabelBook,
    LabelClass,
    Labels,
    Status,
    classes_to_learn,
    is_by_hand,
    names_kept,
    to_plain,
    with_segments,
    write_mask,
)
from napari_dinoaugseg.session.local import local_engine
from napari_dinoaugseg.session.pixel_counts import EVERY_STATUS, PixelCounts
from napari_dinoaugseg.session.saved_model import require_fitting

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder

EVERYTHING = EVERY_STATUS
INPUT = ("encoder", "window", "input_size", "context", "scaling")
"""Settings that decide what features are."""
ARCHITECTURE = ("width", "head", "rotary", "norm", "blocks", "fuse", "fuse_from", "add_query")
"""Settings that shape the decoder: one trained with others cannot be continued."""
_NO_SECONDS = {"encode": 0.0, "train": 0.0, "predict": 0.0}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training, and its file of encoder weights (None = the default ones)."""

    settings: Settings
    weights: Path | None

    def has_features_of(self, other: Recipe) -> bool:
        """Whether both see a slice as the same feature maps."""
        same = all(getattr(self.settings, name) == getattr(other.settings, name) for name in INPUT)
        return same and self.weights == other.weights

    def differences(self, other: Recipe) -> list[str]:
        """Names of the settings (and ``weights``) that keep a decoder of one from being continued as the other."""
        names = [
            name for name in (*INPUT, *ARCHITECTURE) if getattr(self.settings, name) != getattr(other.settings, name)
        ]
        return names if self.weights == other.weights else [*names, "weights"]


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """A saved model that fits a session and is ready to predict, see :meth:`Session.prepare_model`.

    Attributes:
        path: its file.
        checkpoint: its contents.
        classes: what it predicts.
        settings: with which it was trained.
        recipe: with which the session will use it.
        engine: computes with it; close it when the model is not adopted.
    """

    path: Path
    checkpoint: Checkpoint
    classes: list[LabelClass]
    settings: Settings
    recipe: Recipe
    engine: Compute


class Session:
    """A case, its labels, and a decoder that learns from them.

    Args:
        case: what is annotated.
        settings: how to learn.
        config: where to compute, and with which files.
        make_compute: makes what computes; the default is the engine of this computer. `cluster.compute_for` also
            understands a configuration with a scheduler.
        encoder: one that is loaded already, for work on one case after the other; None = loaded when first needed.
        notify: gets sentences for the person (a fallback taken, a licence).

    The settings are those of the next training. A trained model keeps the recipe (settings and encoder weights) with
    which it was trained, and predicts with that, until the next training replaces it.

    Attributes:
        labels: the label book.
        pixel_counts: counts the pixels of its classes.
        history: one entry a training.
        seconds: of the last training and the predictions after it, by stage: ``encode``, ``train``, ``predict``; a new
            mapping after each.
    """

    def __init__(
        self,
        case: Case,
        settings: Settings | None = None,
        config: ComputeConfig | None = None,
        *,
        make_compute: MakeCompute = local_engine,
        encoder: Encoder | None = None,
        notify: Notify = lambda _: None,
    ) -> None:
        self.case = case
        self.settings = settings or Settings()
        self.labels = LabelBook(case.slice_shape, case.n_slices)
        self.pixel_counts = PixelCounts()
        self.history: list[Round] = []
        self._config = config or ComputeConfig()
        self._make_compute = make_compute
        self._encoder = encoder
        self._notify = notify
        self._engine: Compute | None = None
        self._engine_recipe: Recipe | None = None  # of the engine's features
        self._model: Checkpoint | Path | None = None  # the trained decoder, also before the engine is built
        self._model_recipe: Recipe | None = None
        self._unusable: Checkpoint | Path | None = None  # kept: its encoder weights may become available again
        self.seconds: Mapping[str, float] = dict(_NO_SECONDS)
        self._round: Round | None = None  # the entry of the history that gets the seconds of the next predictions

    # --- labelling --------------------------------------------------------------------------------------------------

    def load_labels(self, path: Path, slices: Sequence[int] | None = None) -> list[int]:
        """Take manual labels from a file of the case's geometry or a folder of masks; returns the labelled slices.

        Args:
            path: a label volume, or a folder of masks that match the pictures by name.
            slices: the labelled slices, all-background ones included; None = those with paint (volume), those with a
                mask (pictures).

        Raises:
            LabelError: labels that do not fit the case, or are no labels. Nothing is taken over then.
        """
        loaded = self.case.read_labels(path, slices)
        taken = self.take_labels(loaded, path)
        if isinstance(loaded, ReadLabels):
            for notice in [*loaded.notices, *names_kept(self.labels.classes, loaded.segments)]:
                self._notify(Message(notice).reworded(f"Note: {notice}"))
        return taken

    def take_labels(self, loaded: Mapping[int, Labels], path: Path) -> list[int]:
        """Take labels that were read from a file as manual ones; returns the labelled slices.

        Args:
            loaded: (H, W) by slice. A `ReadLabels` gives classes their names and colours, except those that have a
                name of their own already, and may hold UNKNOWN.
            path: the file, for messages.

        Raises:
            LabelError: a number that no class can have. Nothing is taken over then.
        """
        numbers = {int(value) for labels in loaded.values() for value in np.unique(labels)}
        read = loaded if isinstance(loaded, ReadLabels) else ReadLabels({})
        if read.may_be_unknown:
            numbers.discard(UNKNOWN)
        try:
            self.labels.label(loaded, classes=with_segments(self.labels.classes, numbers, read.segments))
        except LabelError as error:
            msg = f"{path}: {error}"
            raise LabelError(msg) from error
        return sorted(loaded)

    def paint(self, index: int, labels: NDArray[np.integer]) -> None:
        """Set the manual labels of a slice, (H, W)."""
        self.labels.set_manual(index, labels)

    # --- learning ---------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Compute:
        """What computes, for the trained model if there is one; built on first use.

        Raises:
            DeviceError, WeightsError, SettingsError, ClusterError: something that it needs is not available.
        """
        return self._engine or self._engine_for(self._model_recipe or self._next_recipe)

    @property
    def _next_recipe(self) -> Recipe:
        """The recipe of the next training."""
        return Recipe(self.settings, self._config.weights)

    def _engine_for(self, recipe: Recipe) -> Compute:
        """The engine that makes the features of a recipe; it holds the trained model where that is of this recipe."""
        built = self._engine_recipe
        if self._engine is not None and (built is None or not built.has_features_of(recipe)):
            self.close()
            self._encoder = None
        if self._engine is None:
            config = replace(self._config, weights=recipe.weights)
            self._engine = self._new_engine(recipe.settings, config)
            self._engine_recipe = recipe
            if self._model_recipe is not None and not self._model_recipe.differences(recipe):
                with self._losing_workers():
                    self._restore_model(self._engine)
        return self._engine

    def _new_engine(self, settings: Settings, config: ComputeConfig) -> Compute:
        return self._make_compute(self.case, settings, config, encoder=self._encoder, notify=self._notify)

    def configure(self, settings: Settings, config: ComputeConfig) -> None:
        """Choose how to learn from now on; labels, predictions and the trained model stay. Not while work runs.

        The model keeps predicting with the settings of its training; :meth:`changes_since_training` names those that
        keep the next training from continuing it.
        """
        if replace(config, weights=None) != replace(self._config, weights=None):
            self.close()
            self._encoder = None
        self.settings, self._config = settings, config

    def changes_since_training(self) -> list[str]:
        """Names of changed settings because of which the next training starts from scratch; empty if it continues."""
        return [] if self._model_recipe is None else self._model_recipe.differences(self._next_recipe)

    @property
    def model_settings(self) -> Settings | None:
        """The settings with which the trained model was trained; None without a model."""
        return self._model_recipe.settings if self._model_recipe is not None else None

    def close(self) -> None:
        """Let go of encoder and features, and of a worker that computes; they are reloaded on demand."""
        engine, self._engine, self._engine_recipe = self._engine, None, None
        if engine is not None:
            engine.close()

    @property
    def is_ready(self) -> bool:
        """Whether the encoder is loaded. Loads nothing."""
        return self._engine is not None and self._engine.is_ready

    @property
    def is_trained(self) -> bool:
        """Whether there is a decoder to predict with. Builds nothing."""
        return self._model is not None

    def train(self, cancel: Cancel | None = None) -> Generator[Event, None, Round]:
        """Learn from the labelled slices; continues the trained model unless :meth:`changes_since_training` names any.

        The labels are copied at the call; what is painted while the training runs counts in the next one. The events
        may be drawn from another thread, which does not touch the label book.

        Yields events; returns the round. When it is stopped, what has been learnt so far is kept.

        Raises:
            TrainingError: nothing is labelled, or only background.
            WeightsError, DeviceError, ClusterError: the encoder, the device or a worker is not available, or a worker
                is lost (while drawing events).
        """
        labels = self._truths()
        classes = classes_to_learn(self.labels.classes, labels.values())
        return self._train(labels, classes, self._next_recipe, self.agreement(), cancel)

    def _train(
        self,
        labels: dict[int, Labels],
        classes: list[LabelClass],
        recipe: Recipe,
        agreement: float | None,
        cancel: Cancel | None,
    ) -> Generator[Event, None, Round]:
        settings = recipe.settings
        engine = self._engine_for(recipe)
        if self._model_recipe is None or self._model_recipe.differences(recipe):
            engine.forget_decoder()
        before = engine.encode_seconds
        try:
            with self._losing_workers():
                trained = yield from engine.train(labels, classes, settings, cancel)
                model = engine.checkpoint(classes, settings)
        except BaseException:
            if self._model is not None:
                self.close()  # the engine may hold a half-trained decoder; the model that is kept is restored on demand
            raise
        self._model, self._model_recipe, self._unusable = model, recipe, None
        self.seconds = {"encode": engine.encode_seconds - before, "train": trained.seconds, "predict": 0.0}
        self._round = Round(
            labelled=tuple(sorted(labels)),
            steps=trained.steps,
            final_loss=trained.final_loss,
            seconds=self.seconds,
            agreement=agreement,
        )
        self.history.append(self._round)
        return self._round

    def predict(
        self, centre: int = 0, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> Iterator[Prediction]:
        """Predict the slices that are not labelled, nearest to ``centre`` first; the masks go into the label book.

        Args:
            centre: the slice the person looks at.
            report: gets progress and notices, in the thread that draws the predictions.
            cancel: asks for the stop; the masks that came so far stay.

        Yields:
            A prediction for each slice; one whose mask was corrected by those of its neighbours comes a second time.

        Raises:
            TrainingError: there is no trained decoder yet.
        """
        for prediction in self.predictions(centre, report=report, cancel=cancel):
            self.store_prediction(prediction)
            yield prediction

    def predictions(
        self, centre: int = 0, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> Iterator[Prediction]:
        """As :meth:`predict`, but the label book is not touched: its owner calls :meth:`store_prediction`.

        The slices are chosen at the call; the rest may run in another thread.
        """
        order = nearest_first(self.labels.open_slices, centre)
        return self._predictions(order, self._truths(), self._model_recipe or self._next_recipe, report, cancel)

    def _truths(self) -> dict[int, Labels]:
        return {index: self.labels.truth(index) for index in self.labels.labelled}

    def _predictions(
        self, order: list[int], labels: dict[int, Labels], recipe: Recipe, report: Report, cancel: Cancel | None
    ) -> Iterator[Prediction]:
        engine = self._engine_for(recipe)
        started, encoding = time.monotonic(), engine.encode_seconds
        with self._losing_workers():
            yield from engine.predict(order, labels, recipe.settings, report, cancel)
        encode = engine.encode_seconds - encoding
        before, predicting = self.seconds, time.monotonic() - started - encode
        self.seconds = {**before, "encode": before["encode"] + encode, "predict": before["predict"] + predicting}
        if self._round is not None:  # a snapshot may hold the round: it gets another in its place
            self.history[-1] = self._round = replace(self._round, seconds=self.seconds)

    def store_prediction(self, prediction: Prediction) -> None:
        """Put a predicted mask into the label book. Classes that were removed meanwhile become background."""
        known = [0, *(entry.number for entry in self.labels.classes)]
        classes = np.where(np.isin(prediction.classes, known), prediction.classes, 0)
        self.labels.set_prediction(prediction.index, classes, prediction.confidence)

    def agreement(self) -> float | None:
        """Mean Dice (0 to 1) of the predictions with what the person made of them since the last training."""
        return agreement(self.labels, self.history[-1].labelled if self.history else ())

    def suggest(self, count: int = 1) -> list[Suggestion]:
        """The slices worth labelling next, best first."""
        amounts = self.pixel_counts.foreground(self.labels) if self.case.kind == "volume" else None
        return suggest(self.case.n_slices, self.labels.labelled, self.labels.confidence, count, amounts)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def encoder_name(self) -> str:
        """The encoder in use, never ``auto``."""
        return self.engine.encoder_name

    @property
    def device_name(self) -> str:
        """The device in use: ``cpu``, ``cuda``, ``mps``, and whether it is a worker's."""
        return self.engine.device_name

    @property
    def encoded(self) -> int:
        """How many slices and views passed the encoder so far; 0 when all features were cached."""
        return self.engine.encoded

    # --- results ----------------------------------------------------------------------------------------------------

    def export(
        self,
        path: Path,
        include: Iterable[Status] = EVERYTHING,
        *,
        keep_unknown: bool = False,
        reviewed_only: bool = False,
    ) -> None:
        """Write the mask in exactly the case's geometry; see :meth:`Case.write_mask`.

        Args:
            path: a file for a volume, a folder for pictures.
            include: which slices count; the others come out as background.
            keep_unknown: pixels left open on slices labelled by hand stay `UNKNOWN`, which masks of pictures can hold;
                else they are filled from the prediction.
            reviewed_only: background on slices that nobody has looked at, see :meth:`LabelBook.unseen`.

        Raises:
            OutputError: it cannot be written.
        """
        wanted, book = tuple(include), self.labels
        by_hand = is_by_hand(book, self.case.n_slices, wanted, reviewed_only=reviewed_only)

        def mask(index: int) -> Labels:
            manual = book.manual(index) if keep_unknown else None
            return book.result(index, wanted, reviewed_only=reviewed_only) if manual is None else manual

        write_mask(self.case, path, mask, book.classes, by_hand=by_hand)

    def save_model(self, path: Path) -> None:
        """Write the trained decoder for the next case. Raises TrainingError without one, OutputError."""
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import save_checkpoint

        model = self.model
        if model is None:
            msg = "There is no trained model to save. Train first."
            raise TrainingError(msg)
        now = {entry["number"]: entry for entry in to_plain(self.labels.classes)}  # renamed since, perhaps
        save_checkpoint(path, replace(model, classes=[now.get(entry["number"], entry) for entry in model.classes]))

    def load_model(self, path: Path, *, window: str | None = None) -> Settings:
        """Use a saved decoder: its architecture and classes, the window it saw, and its encoder.

        Classes that the session has already must be the model's.

        Args:
            path: what :meth:`save_model` wrote.
            window: another intensity window than the model was trained with; None = the model's.

        Returns:
            The settings with which the model was trained; those of the session keep how to train on.

        Raises:
            CheckpointError: no model file, another encoder, or other classes. The session stays as it was.
            WeightsError: the weights of the model's encoder are not available.
        """
        return self.adopt_model(self.prepare_model(path, window=window))

    def use_model(self, checkpoint: Checkpoint, path: Path, *, window: str | None = None) -> Settings:
        """Like :meth:`load_model`, with a model that was read from ``path`` already."""
        return self.adopt_model(self._prepared(checkpoint, path, window, brings_classes=False))

    def prepare_model(self, path: Path, *, window: str | None = None, brings_classes: bool = False) -> PreparedModel:
        """The slow part of :meth:`load_model`, which changes nothing: it may run in another thread.

        Args:
            path: what :meth:`save_model` wrote.
            window: as of :meth:`load_model`.
            brings_classes: the model's classes may take the place of other ones of the session.

        Raises:
            As :meth:`load_model`.
        """
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint

        return self._prepared(load_checkpoint(path), path, window, brings_classes=brings_classes)

    def _prepared(
        self, checkpoint: Checkpoint, path: Path, window: str | None, *, brings_classes: bool
    ) -> PreparedModel:
        present = [] if brings_classes else [entry.number for entry in self.labels.classes]
        classes, settings = require_fitting(checkpoint, path, present, self.settings.encoder)
        # The decoder fits one encoder, one kind of input, one architecture; how to train on stays the person's choice.
        kept = ("encoder", "input_size", "context", "scaling", "mirrors", "resize", *ARCHITECTURE)
        adopted = self.settings.with_changes(
            **{name: getattr(settings, name) for name in kept}, window=window or settings.window
        )
        engine = self._new_engine(adopted, self._config)
        try:
            engine.restore(checkpoint, [entry.number for entry in classes], path)
        except BaseException:
            engine.close()
            raise
        return PreparedModel(path, checkpoint, classes, settings, Recipe(adopted, self._config.weights), engine)

    def adopt_model(self, prepared: PreparedModel) -> Settings:
        """Take over a model that :meth:`prepare_model` made. Call it where the labels are changed.

        Returns:
            The settings with which the model was trained.

        Raises:
            CheckpointError: slices were labelled with other classes meanwhile. The session stays as it was.
        """
        book, classes = self.labels, prepared.classes
        try:
            if book.labelled:
                present = [entry.number for entry in book.classes]
                require_fitting(prepared.checkpoint, prepared.path, present, self.settings.encoder)
            if [entry.number for entry in book.classes] != [entry.number for entry in classes]:
                book.replace_classes(classes)
        except BaseException:
            prepared.engine.close()
            raise
        self.close()
        self._engine, self._engine_recipe = prepared.engine, prepared.recipe
        self._model, self._model_recipe, self._unusable = prepared.checkpoint, prepared.recipe, None
        self.settings = prepared.recipe.settings
        return prepared.settings

    @property
    def model(self) -> Checkpoint | None:
        """The trained decoder with what is needed to use it. Raises CheckpointError when its file was damaged."""
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint

        if isinstance(self._model, Path):
            self._model = load_checkpoint(self._model)
        return self._model

    # --- memory -----------------------------------------------------------------------------------------------------

    def snapshot(self, view: Mapping[str, Any] | None = None) -> Snapshot:
        """All that the session is now; what happens later does not reach it. Call it where the labels are changed."""
        model = self._model or self._unusable
        return Snapshot(
            self.labels.content(), self.settings, tuple(self.history), model, dict(view or {}), self.model_settings
        )

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of a session with the same case; everything here is replaced.

        The encoder is loaded when it is first needed, as ever. Raises LabelError when the labels do not fit the case;
        nothing is changed then.
        """
        self.labels.take_content(snapshot.book)
        self.close()
        self.settings, self.history, self._round = snapshot.settings, list(snapshot.history), None
        self._model, self._unusable = snapshot.model, None
        # Before models kept their settings, a model of other settings than the session's was never saved.
        trained_with = snapshot.model_settings or snapshot.settings
        self._model_recipe = None if snapshot.model is None else Recipe(trained_with, self._config.weights)

    # --- private -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _losing_workers(self) -> Iterator[None]:
        """Drop the engine when its worker is lost; it is rebuilt on next use, with the model that is kept here."""
        try:
            yield
        except ClusterError:
            self.close()
            raise

    def _restore_model(self, engine: Compute) -> None:
        """Give the trained model to a new engine; one that no longer fits is kept aside, with a notice."""
        source = self._model if isinstance(self._model, Path) else self.case.path
        try:
            model = self.model
            if model is not None:
                engine.restore(model, [int(entry["number"]) for entry in model.classes], source)
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            self._model, self._unusable = None, self._model
            self._model_recipe = None
            msg = f"What was learnt before cannot be used any more; train again. ({error})"
            self._notify(error.message.reworded(msg) if isinstance(error, CheckpointError) else msg)
