"""The session: a case, its labels and a decoder; everything that a person does with them, in that order.

Command line and panel are thin layers on top. Its interface needs neither PyTorch nor a widget; the engine is loaded
when training or prediction first needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, Slices, VolumeCase
from napari_dinoaugseg.case.case import MaskOf, ReadLabels, Segment
from napari_dinoaugseg.case.joint import JointSlices
from napari_dinoaugseg.case.measure import Measure, measures_from, measures_to_plain
from napari_dinoaugseg.case.sequences import in_words, mismatch, same_sequences
from napari_dinoaugseg.errors import (
    CheckpointError,
    ClusterError,
    Hint,
    LabelError,
    Message,
    SettingsError,
    TrainingError,
)
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction, Report, ignore, nearest_first
from napari_dinoaugseg.learning.metrics import mean_dice, mean_of
from napari_dinoaugseg.learning.query import Suggestion, suggest
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.native import importing_torch
from napari_dinoaugseg.session.compute import Compute, ComputeConfig, Learned, LiveFeed, LiveState, MakeCompute, Notify
from napari_dinoaugseg.session.index import Round, Snapshot
from napari_dinoaugseg.session.labels import (
    EVERYTHING,
    UNKNOWN,
    LabelBook,
    LabelClass,
    Labels,
    Status,
    digest_of,
    from_plain,
    is_by_hand,
    names_kept,
    to_plain,
    with_segments,
)
from napari_dinoaugseg.session.last_round import LastRound
from napari_dinoaugseg.session.local import local_engine
from napari_dinoaugseg.session.pixel_counts import PixelCounts

if TYPE_CHECKING:
    from napari_dinoaugseg.model.checkpoint import Checkpoint
    from napari_dinoaugseg.model.encoder import Encoder

INPUT = ("encoder", "window", "input_size", "context", "scaling")
"""Settings that determine the features."""
ARCHITECTURE = ("width", "head", "rotary", "norm", "blocks", "fuse", "fuse_from", "add_query")
"""Settings that determine the decoder's architecture."""
_NO_SECONDS = {"encode": 0.0, "train": 0.0, "predict": 0.0}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training, and its encoder weights file (None = the default weights)."""

    settings: Settings
    weights: Path | None

    def has_features_of(self, other: Recipe) -> bool:
        """Whether both give the same feature maps for a slice."""
        same = all(getattr(self.settings, name) == getattr(other.settings, name) for name in INPUT)
        return same and self.weights == other.weights

    def differences(self, other: Recipe) -> list[str]:
        """Names of the differing settings (and ``weights``) with which a decoder cannot be trained further."""
        names = [
            name for name in (*INPUT, *ARCHITECTURE) if getattr(self.settings, name) != getattr(other.settings, name)
        ]
        # A decoder that has converged on features of a frozen encoder would hold it where it is.
        if (self.settings.adaptation is None) != (other.settings.adaptation is None):
            names.append("adaptation")
        return names if self.weights == other.weights else [*names, "weights"]


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """The labels of another case, from which a training learns as well.

    Attributes:
        slices: its pixels.
        labels: (H, W) class numbers or `UNKNOWN`, by slice.
        classes: of the labels.
    """

    slices: Slices
    labels: Mapping[int, Labels]
    classes: Sequence[LabelClass]


ReadOthers = Callable[[], Sequence[LabelledCase]]
"""Reads the labels of other cases, in the thread that trains."""


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """A saved model that fits a session and is ready to predict, see :meth:`Session.prepare_model`.

    Attributes:
        path: its file.
        checkpoint: its contents.
        classes: that it predicts.
        settings: of its training.
        recipe: that the session will use it with.
        engine: holds its decoder; close it if the model is not adopted.
    """

    path: Path
    checkpoint: Checkpoint
    classes: list[LabelClass]
    settings: Settings
    recipe: Recipe
    engine: Compute


class Session:
    """A case, its labels, and a decoder that is trained on them.

    The settings are those of the next training. A trained model keeps the recipe (settings and encoder weights) of its
    training, and predicts with that, until the next training replaces it.

    Args:
        case: the case.
        settings: of the next training.
        config: where to compute, and with which files.
        make_compute: makes the engine; the default makes that of this computer. `cluster.compute_for` also accepts a
            configuration with a scheduler.
        encoder: a loaded encoder, shared between cases; None = loaded when first needed.
        notify: receives sentences for the person (a fallback, a licence).

    Attributes:
        labels: the label book.
        pixel_counts: counts the pixels of its classes.
        last_round: the predictions before the last round changed them.
        measures: lengths and angles on its slices, in the order in which they were taken.
        history: one entry for each training.
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
        self.last_round = LastRound()
        self.measures: list[Measure] = []
        self.history: list[Round] = []
        self._config = config or ComputeConfig()
        self._make_compute = make_compute
        self._encoder = encoder
        self._notify = notify
        self._engine: Compute | None = None
        self._engine_recipe: Recipe | None = None  # that the engine was built for
        self._model: Checkpoint | Path | None = None  # kept without an engine, too
        self._model_recipe: Recipe | None = None
        self._unusable: Checkpoint | Path | None = None  # kept: its encoder weights may become available again
        self.seconds: Mapping[str, float] = dict(_NO_SECONDS)
        self._round: Round | None = None  # the entry of the history that next predictions add their seconds to

    # --- labelling --------------------------------------------------------------------------------------------------

    def load_labels(self, path: Path, slices: Sequence[int] | None = None) -> list[int]:
        """Load manual labels from a file of the case's geometry or a folder of masks; returns the labelled slices.

        Args:
            path: a label volume, or a folder of masks that match the pictures by name.
            slices: the labelled slices, all-background ones included; None = those with paint (volume), those with a
                mask (pictures).

        Raises:
            LabelError: not labels, or labels that do not fit the case; nothing is changed.
        """
        loaded = self.case.read_labels(path, slices)
        taken = self.take_labels(loaded, path)
        if isinstance(loaded, ReadLabels):
            for notice in [*loaded.notices, *names_kept(self.labels.classes, loaded.segments)]:
                self._notify(Message(notice).reworded(f"Note: {notice}"))
        return taken

    def take_labels(self, loaded: Mapping[int, Labels], path: Path) -> list[int]:
        """Set manual labels that were read from a file; returns the labelled slices.

        Args:
            loaded: (H, W) by slice. A `ReadLabels` gives names and colours to classes with a default name, and may
                hold UNKNOWN.
            path: the file, for messages.

        Raises:
            LabelError: a number that no class can have; nothing is changed.
        """
        numbers = {int(value) for labels in loaded.values() for value in np.unique(labels)}
        read = loaded if isinstance(loaded, ReadLabels) else ReadLabels({})
        if read.may_be_unknown:
            numbers.discard(UNKNOWN)
        try:
            self.labels.label(loaded, classes=with_segments(self.labels.classes, numbers, read.segments))
        except LabelError as error:
            msg = error.message.after(f"{path}: ")
            raise LabelError(msg) from error
        return sorted(loaded)

    def paint(self, index: int, labels: NDArray[np.integer]) -> None:
        """Set the manual labels of a slice, (H, W)."""
        self.labels.set_manual(index, labels)

    # --- learning ---------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Compute:
        """The engine, with the trained model if there is one; built on first use.

        Raises:
            DeviceError, WeightsError, SettingsError, ClusterError: device, weights, window or scheduler is not usable.
        """
        return self._engine or self._engine_for(self._model_recipe or self._next_recipe)

    @property
    def _next_recipe(self) -> Recipe:
        """The recipe of the next training."""
        return Recipe(self.settings, self._config.weights)

    def _engine_for(self, recipe: Recipe) -> Compute:
        """The engine for the features of a recipe, with the trained model if that has the same recipe."""
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
        """Set the settings and configuration of the next training; everything else stays. Not while work runs.

        The model keeps predicting with the settings of its training; :meth:`changes_since_training` names those with
        which the next training cannot continue it.
        """
        if replace(config, weights=None) != replace(self._config, weights=None):
            self.close()
            self._encoder = None
        self.settings, self._config = settings, config

    def changes_since_training(self) -> list[str]:
        """Names of changed settings that make the next training start from scratch; empty if it continues."""
        return [] if self._model_recipe is None else self._model_recipe.differences(self._next_recipe)

    @property
    def model_settings(self) -> Settings | None:
        """The settings of the trained model; None without a model."""
        return self._model_recipe.settings if self._model_recipe is not None else None

    @property
    def model_recipe(self) -> Recipe | None:
        """How the model was trained; None without a model."""
        return self._model_recipe

    def close(self) -> None:
        """Release encoder, features and worker; they are reloaded on demand."""
        engine, self._engine, self._engine_recipe = self._engine, None, None
        if engine is not None:
            engine.close()

    @property
    def is_ready(self) -> bool:
        """Whether the encoder is loaded; does not load it."""
        return self._engine is not None and self._engine.is_ready

    @property
    def is_trained(self) -> bool:
        """Whether a decoder is trained or loaded; does not build it."""
        return self._model is not None

    def train(
        self,
        cancel: Cancel | None = None,
        others: Sequence[LabelledCase] | ReadOthers = (),
        learned: Collection[str] = (),
    ) -> Generator[Event, None, Round]:
        """Train on the labelled slices; continues the trained model if :meth:`changes_since_training` is empty.

        The labels are copied at the call; what is painted during the training counts in the next one. The generator may
        run in another thread; it does not touch the label book.

        Args:
            cancel: stops the training, and keeps the decoder trained so far.
            others: labelled slices of other cases, or a function that reads them when the generator runs. Every slice
                counts alike, whatever its case; but where a model is continued, those that it has not learned from
                count as much as all others together.
            learned: digests of the labels that the model to be continued has learned from, see `digest_of`; unused
                without ``others``.

        Yields events; returns the round.

        Raises:
            TrainingError: nothing is labelled, or only background.
            WeightsError, DeviceError, ClusterError: the encoder, the device or a worker is not available, or a worker
                is lost (while the generator runs).
        """
        own, classes, recipe, agreement = self._truths(), self.labels.classes, self._next_recipe, self.agreement()
        if callable(others):
            return self._train_with(own, others, learned, classes, recipe, agreement, cancel)
        _require_classes([*own.values(), *_labels_of(others)])
        return self._train(own, others, learned, _joined_classes(classes, others), recipe, agreement, cancel)

    def _train_with(
        self,
        own: dict[int, Labels],
        read: ReadOthers,
        learned: Collection[str],
        classes: Sequence[LabelClass],
        recipe: Recipe,
        agreement: float | None,
        cancel: Cancel | None,
    ) -> Generator[Event, None, Round]:
        others = read()
        _require_classes([*own.values(), *_labels_of(others)])
        joined = _joined_classes(classes, others)
        return (yield from self._train(own, others, learned, joined, recipe, agreement, cancel))

    def _train(
        self,
        own: dict[int, Labels],
        others: Sequence[LabelledCase],
        learned: Collection[str],
        classes: list[LabelClass],
        recipe: Recipe,
        agreement: float | None,
        cancel: Cancel | None,
    ) -> Generator[Event, None, Round]:
        settings = recipe.settings
        with self._engine_to_train(recipe, others) as engine:
            if self._model_recipe is None or self._model_recipe.differences(recipe):
                engine.forget_decoder()
            before = engine.encode_seconds
            with self._losing_workers():
                labels, newest = self._joined(own, others), []
                if others:
                    slices = JointSlices([self.case, *(other.slices for other in others)])
                    newest = [i for i in labels if digest_of(slices, i, labels[i]) not in learned]
                trained = yield from engine.train(labels, classes, settings, cancel, newest)
                model = engine.checkpoint(classes, settings)
        self._model, self._model_recipe, self._unusable = model, recipe, None
        self.seconds = {"encode": engine.encode_seconds - before, "train": trained.seconds, "predict": 0.0}
        self._round = Round(
            labelled=tuple(sorted(own)),
            steps=trained.steps,
            final_loss=trained.final_loss,
            seconds=self.seconds,
            agreement=agreement,
        )
        self.history.append(self._round)
        return self._round

    @contextmanager
    def _engine_to_train(self, recipe: Recipe, others: Sequence[LabelledCase]) -> Iterator[Compute]:
        """The engine of the session; with other cases one of its own, so that their features are released after."""
        if not others:
            engine = self._engine_for(recipe)
            try:
                yield engine
            except BaseException:
                if self._model is not None:
                    self.close()  # it may hold a half-trained decoder; the kept model is restored on demand
                raise
            return
        encoder = self.encoder
        self.close()  # two engines would hold features in memory at once
        joint = JointSlices([self.case, *(other.slices for other in others)])
        config = replace(self._config, weights=recipe.weights)
        engine = self._make_compute(joint, recipe.settings, config, encoder=encoder, notify=self._notify)
        try:
            if self._model_recipe is not None and not self._model_recipe.differences(recipe):
                with self._losing_workers():
                    self._restore_model(engine)
            yield engine
        finally:
            self._encoder = engine.encoder
            engine.close()

    def _joined(self, own: Mapping[int, Labels], others: Sequence[LabelledCase]) -> dict[int, Labels]:
        """The labels by their slice numbers in the joined cases."""
        labels, start = dict(own), self.case.n_slices
        for other in others:
            labels |= {start + index: values for index, values in other.labels.items()}
            start += other.slices.n_slices
        return labels

    def predict(
        self, centre: int = 0, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> Iterator[Prediction]:
        """Predict the slices that are not labelled, nearest to ``centre`` first, and store the masks in the label book.

        Args:
            centre: the slice in view.
            report: receives progress and notices, in the thread that runs the generator.
            cancel: stops the prediction; stored masks stay.

        Yields:
            A prediction for each slice; one whose mask is corrected afterwards comes a second time.

        Raises:
            TrainingError: no decoder is trained yet.
        """
        for prediction in self.predictions(centre, report=report, cancel=cancel):
            self.store_prediction(prediction)
            yield prediction

    def predictions(
        self, centre: int = 0, *, report: Report = ignore, cancel: Cancel | None = None
    ) -> Iterator[Prediction]:
        """As :meth:`predict`, without the label book: the caller passes each prediction to :meth:`store_prediction`.

        The slices are chosen at the call; the generator may run in another thread.
        """
        self.last_round.begin()
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
        if self._round is not None:  # rounds are immutable: a snapshot may hold this one
            self.history[-1] = self._round = replace(self._round, seconds=self.seconds)

    def live_state(self, centre: int) -> LiveState:
        """The labels as they are now, and the open slices, nearest to ``centre`` first, for :meth:`live`."""
        order = nearest_first(self.labels.open_slices, centre)
        return LiveState(self._truths(), tuple(self.labels.classes), tuple(order))

    def live(
        self,
        feed: LiveFeed,
        *,
        report: Report = ignore,
        cancel: Cancel,
        others: ReadOthers | None = None,
        learned: Collection[str] = (),
        start: Callable[[], Learned | None] = lambda: None,
    ) -> Generator[Prediction, None, Learned | None]:
        """Learn from the labels in the feed while they change, and predict open slices, until it is cancelled.

        It works beside the label book: the caller puts a :meth:`live_state` into the feed after each change, and passes
        each prediction to :meth:`store_prediction`. The trained model stays as it is; if the next training would
        continue it, so does this. No other work of the session may run meanwhile. The generator may run in another
        thread.

        Args:
            feed: of states of this session.
            report: receives progress and notices, in the thread that runs the generator.
            cancel: ends it.
            others: reads labelled slices of other cases, which are learned as well.
            learned: digests of the labels that the trained model has learned from, see `digest_of`.
            start: gives what it learned in another case before, to go on from there, with the same settings; unused
                unless there are labelled slices of other cases.

        Returns:
            What it has learned; None before its masks are worth a look.
        """
        return self._live(feed, self._next_recipe, report, cancel, others, learned, start)

    def _live(
        self,
        feed: LiveFeed,
        recipe: Recipe,
        report: Report,
        cancel: Cancel,
        read: ReadOthers | None,
        learned: Collection[str],
        start: Callable[[], Learned | None],
    ) -> Generator[Prediction, None, Learned | None]:
        others = read() if read is not None else []
        continues = self._model_recipe is not None and not self._model_recipe.differences(recipe)
        if others:
            feed.put_beside(self._joined({}, others), _joined_classes((), others))
        with self._engine_to_train(recipe, others) as engine, self._losing_workers():
            settings = recipe.settings
            before = start() if others else None  # the engine of this case alone keeps its trained decoder
            if before is not None:
                engine.restore(before.model, [entry["number"] for entry in before.model.classes], Path("Live"))
                continues, learned, settings = True, before.digests, Settings.checked(before.model.settings)
            source = engine.live(feed, settings, report, cancel, continues=continues, digests=learned)
            while True:
                try:
                    found = next(source)
                except StopIteration as end:
                    return end.value or before
                if found is not None:
                    yield found

    def store_prediction(self, prediction: Prediction) -> None:
        """Store a predicted mask in the label book. Classes removed since become background."""
        known = [0, *(entry.number for entry in self.labels.classes)]
        classes = np.where(np.isin(prediction.classes, known), prediction.classes, 0)
        self.last_round.replace(prediction.index, self.labels.predicted(prediction.index))
        self.labels.set_prediction(prediction.index, classes, prediction.confidence)

    def agreement(self) -> float | None:
        """Mean Dice (0 to 1) of the last predictions with the manual labels of slices that were not trained on."""
        trained_on = self.history[-1].labelled if self.history else ()
        return mean_of(self._agreement(index) for index in self.labels.labelled if index not in trained_on)

    def _agreement(self, index: int) -> float | None:
        """Mean Dice over the classes of a slice; None unless it has both a prediction and manual labels."""
        predicted, labels = self.labels.predicted(index), self.labels.manual(index)
        if predicted is None or labels is None:
            return None
        known = labels != UNKNOWN
        return mean_dice(np.where(known, predicted, 0), np.where(known, labels, 0))

    def suggest(self, count: int = 1, beside: Collection[int] = ()) -> list[Suggestion]:
        """The slices worth labelling next, best first.

        Args:
            count: how many.
            beside: slices that will be labelled before, and count as labelled.
        """
        book, n_slices = self.labels, self.case.n_slices
        labelled = {*book.labelled, *beside}
        if self.case.kind == "volume":
            amounts = self.pixel_counts.foreground(book)
            return suggest(n_slices, labelled, book.confidence, count, amounts)
        descriptors = {} if self._engine is None else self._engine.descriptors
        return suggest(n_slices, labelled, book.confidence, count, descriptors=descriptors)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder | None:
        """The loaded encoder, for the sessions of other cases; None before it is loaded, or on a worker."""
        return self._engine.encoder if self._engine is not None else self._encoder

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
        """How many slices and views were encoded so far; 0 when all features were cached."""
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
            include: the layers to write; other slices are background.
            keep_unknown: unknown pixels of manual labels stay `UNKNOWN`, which masks of pictures can hold; otherwise
                they are filled from the prediction.
            reviewed_only: background on slices that nobody has looked at, see :meth:`LabelBook.unseen`.

        Raises:
            OutputError: it cannot be written.
        """
        wanted, book = tuple(include), self.labels
        by_hand = is_by_hand(book, wanted, reviewed_only=reviewed_only)

        def mask(index: int) -> Labels:
            manual = book.manual(index) if keep_unknown else None
            return book.result(index, wanted, reviewed_only=reviewed_only) if manual is None else manual

        write_mask(self.case, path, mask, book.classes, by_hand=by_hand)

    def save_model(self, path: Path) -> None:
        """Save the trained decoder for other cases. Raises TrainingError without one, OutputError."""
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import save_checkpoint
            from napari_dinoaugseg.model.specs import ENCODERS

        model = self.model
        if model is None:
            msg = "No trained model to save. Train first."
            raise TrainingError(msg)
        now = {entry["number"]: entry for entry in to_plain(self.labels.classes)}  # possibly renamed
        save_checkpoint(path, replace(model, classes=[now.get(entry["number"], entry) for entry in model.classes]))
        spec = ENCODERS.get(model.encoder["name"])
        if model.encoder_changes and spec is not None and spec.source == "hub":
            terms = f"If you pass it on, the {spec.licence} applies ({spec.licence_url})."
            self._notify(f"{path.name} holds weights that were derived from those of {spec.name}. {terms}")

    def load_model(self, path: Path, *, window: str | None = None) -> Settings:
        """Use a saved decoder with its architecture, classes, intensity window and encoder.

        Existing classes of the session must be those of the model.

        Args:
            path: a file that :meth:`save_model` wrote.
            window: an intensity window in place of the model's; None = the model's.

        Returns:
            The settings of the model's training; the session keeps its own for how to train further.

        Raises:
            CheckpointError: not a model, another encoder, other classes, or other sequences than those of the case. The
                session is not changed.
            WeightsError: the weights of the model's encoder are not available.
        """
        return self.adopt_model(self.prepare_model(path, window=window))

    def use_model(self, checkpoint: Checkpoint, path: Path, *, window: str | None = None) -> Settings:
        """As :meth:`load_model`, with a model that was already read from ``path``."""
        return self.adopt_model(self._prepared(checkpoint, path, window, brings_classes=False))

    def prepare_model(self, path: Path, *, window: str | None = None, brings_classes: bool = False) -> PreparedModel:
        """The slow part of :meth:`load_model`. It changes nothing, so it may run in another thread.

        Args:
            path: a file that :meth:`save_model` wrote.
            window: as in :meth:`load_model`.
            brings_classes: the model's classes may replace those of the session.

        Raises:
            CheckpointError, WeightsError: as :meth:`load_model`.
        """
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint

        return self._prepared(load_checkpoint(path), path, window, brings_classes=brings_classes)

    def _prepared(
        self, checkpoint: Checkpoint, path: Path, window: str | None, *, brings_classes: bool
    ) -> PreparedModel:
        require_sequences(checkpoint, path, self.case)
        present = [] if brings_classes else [entry.number for entry in self.labels.classes]
        classes, settings = require_fitting(checkpoint, path, present, self.settings.encoder)
        # The decoder fits one encoder, input and architecture; how to train further stays the person's choice.
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
        """Use a model from :meth:`prepare_model`. Call it in the thread that changes the labels.

        Returns:
            The settings of the model's training.

        Raises:
            CheckpointError: slices were labelled with other classes meanwhile. The session is not changed.
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
        """The trained decoder with all that is needed to use it. Raises CheckpointError if its file is damaged."""
        with importing_torch():
            from napari_dinoaugseg.model.checkpoint import load_checkpoint

        if isinstance(self._model, Path):
            self._model = load_checkpoint(self._model)
        return self._model

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshot(self, view: Mapping[str, Any] | None = None) -> Snapshot:
        """The state of the session; later changes do not affect it. Call it in the thread that changes the labels."""
        model = self._model or self._unusable
        kept = dict(view or {}) | ({"measures": measures_to_plain(self.measures)} if self.measures else {})
        return Snapshot(self.labels.content(), self.settings, tuple(self.history), model, kept, self.model_settings)

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same case, which replaces everything.

        Raises:
            LabelError: the labels do not fit the case; nothing is changed.
        """
        self.labels.take_content(snapshot.book)
        self.close()
        self.settings, self.history, self._round = snapshot.settings, list(snapshot.history), None
        self.measures = measures_from(snapshot.view.get("measures"), self.case.n_slices)
        self._model, self._unusable = snapshot.model, None
        # Older versions saved no settings with a model: they were always those of the session.
        trained_with = snapshot.model_settings or snapshot.settings
        self._model_recipe = None if snapshot.model is None else Recipe(trained_with, self._config.weights)

    # --- private -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _losing_workers(self) -> Iterator[None]:
        """Drop the engine when its worker is lost; it is rebuilt on next use, with the kept model."""
        try:
            yield
        except ClusterError:
            self.close()
            raise

    def _restore_model(self, engine: Compute) -> None:
        """Give the trained model to a new engine; a model that no longer fits is set aside, with a notice."""
        source = self._model if isinstance(self._model, Path) else self.case.path
        try:
            model = self.model
            if model is not None:
                engine.restore(model, [int(entry["number"]) for entry in model.classes], source)
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            self._model, self._unusable = None, self._model
            self._model_recipe = None
            msg = f"The trained model can no longer be used; train again. ({error})"
            self._notify(error.message.reworded(msg) if isinstance(error, CheckpointError) else msg)


def _labels_of(others: Sequence[LabelledCase]) -> list[Labels]:
    return [labels for other in others for labels in other.labels.values()]


def _joined_classes(own: Sequence[LabelClass], others: Sequence[LabelledCase]) -> list[LabelClass]:
    """The classes of all cases, ascending; the open case names and colours its own."""
    classes = {entry.number: entry for other in others for entry in other.classes}
    classes.update({entry.number: entry for entry in own})
    return [classes[number] for number in sorted(classes)]


def _require_classes(labelled: Collection[Labels]) -> None:
    """Raise TrainingError unless slices are labelled with a class and something else."""
    if not labelled:
        msg = "No slice is labelled. Paint at least one slice, then train."
        raise TrainingError(msg)
    values = {int(value) for labels in labelled for value in np.unique(labels)}
    if values <= {0, UNKNOWN}:
        msg = "The labelled slices hold only background. Paint at least one class on one slice, then train."
        raise TrainingError(msg)
    if len(values) == 2 and UNKNOWN in values:
        msg = "One class is labelled and nothing else, so that nothing says where it ends. Label some background, too."
        raise TrainingError(msg)


def write_mask(case: Case, path: Path, masks: MaskOf, classes: Iterable[LabelClass], *, by_hand: bool = False) -> None:
    """Write a mask with :meth:`Case.write_mask`; a volume's file may also hold the classes (DICOM SEG).

    Args:
        case: of the mask.
        path: the file or folder.
        masks: gives the labels (H, W) of slice i.
        classes: number, name and colour of the labels in it.
        by_hand: whether a person painted all of it.

    Raises:
        OutputError: it cannot be written.
    """
    if isinstance(case, VolumeCase):
        segments = [Segment(entry.number, entry.name, entry.colour, by_hand) for entry in classes]
        case.write_mask(path, masks, segments)
    else:
        case.write_mask(path, masks)


def require_sequences(checkpoint: Checkpoint, path: Path, case: Case) -> None:
    """Raise CheckpointError unless a model was trained with the sequences of a case, in the same order."""
    there = tuple(case.sequences)
    if same_sequences(checkpoint.sequences, there):
        return
    trained, has = in_words(checkpoint.sequences), mismatch(checkpoint.sequences, there, case.name)
    msg = f"{path}: the model was trained with {trained}; {has}."
    raise CheckpointError(msg, Hint.SEQUENCES_OF_MODEL)


def require_fitting(
    checkpoint: Checkpoint, path: Path, present: Sequence[int], encoder: str
) -> tuple[list[LabelClass], Settings]:
    """The classes and settings of a saved model.

    Args:
        checkpoint: the model.
        path: its file, for messages.
        present: the class numbers of the session; empty = the model brings its own.
        encoder: of the session's settings, or ``auto``.

    Raises:
        CheckpointError: another encoder, other classes, or contents that this version does not understand.
    """
    with importing_torch():
        from napari_dinoaugseg.model.specs import ENCODERS

    try:
        classes, settings = from_plain(checkpoint.classes), Settings.checked(checkpoint.settings)
    except (KeyError, TypeError, ValueError, LabelError, SettingsError) as error:
        msg = (
            f"{path}: the model file describes classes or settings that this version does not understand. "
            f"Train a new model ({error})."
        )
        raise CheckpointError(msg) from error
    if settings.encoder not in ENCODERS:
        msg = f"{path}: the model needs the encoder '{settings.encoder}', which is not known here. Train a new model."
        raise CheckpointError(msg)
    numbers = [entry.number for entry in classes]
    if present and list(present) != numbers:
        theirs, ours = (", ".join(str(number) for number in listed) for listed in (numbers, present))
        msg = (
            f"{path}: the model knows the classes {theirs}, the labels have {ours}. "
            "They must be the same; give labels with these values, or train without the model."
        )
        raise CheckpointError(msg)
    if encoder not in ("auto", settings.encoder):
        msg = (
            f"{path}: the model works on features of {settings.encoder}, not of {encoder}. "
            "Use that encoder (or auto), or train without the model."
        )
        raise CheckpointError(msg)
    return classes, settings
