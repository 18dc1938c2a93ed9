"""The engine of a session: encoder, feature store and decoder, on this computer."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median_low

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_dinoaugseg.case import Slices
from napari_dinoaugseg.case.intensity import Scale, choose_scales
from napari_dinoaugseg.errors import CheckpointError, DeviceError, Hint, TrainingError
from napari_dinoaugseg.learning.augmentation import neighbour_distance
from napari_dinoaugseg.learning.cache import FeatureCache
from napari_dinoaugseg.learning.completion import complete_scribbles
from napari_dinoaugseg.learning.events import Cancel, Event, Prediction, Progress, Report
from napari_dinoaugseg.learning.fallback import choose_device, classify_error, free_memory, give_up, usable
from napari_dinoaugseg.learning.features import FeatureStore
from napari_dinoaugseg.learning.live import Learner
from napari_dinoaugseg.learning.postprocessing import UNKNOWN_TARGET, Finish
from napari_dinoaugseg.learning.predict import AS_THEY_ARE, choose_finish, choose_tta, predict
from napari_dinoaugseg.learning.pretraining import Pretraining
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import Example, fit
from napari_dinoaugseg.model.checkpoint import Checkpoint, build_decoder
from napari_dinoaugseg.model.decoder import Decoder
from napari_dinoaugseg.model.encoder import Encoder, load_encoder, resolve_encoder
from napari_dinoaugseg.session.compute import ComputeConfig, Learned, LiveFeed, LiveState, Notify, TrainingResult
from napari_dinoaugseg.session.labels import UNKNOWN, LabelClass, Labels, digest_of, to_plain

_PAUSE = 0.1  # seconds between two looks for new labels, or for the end, while there is nothing to learn
_AHEAD = 9  # slices of a volume around the one in view that are encoded before anything is labelled


class Engine:
    """Encoder, features and decoder of a case; an implementation of `Compute`.

    Args:
        case: its slices are encoded. Joined cases keep their own windows; the distance of neighbouring slices in 2.5D
            is the same for all, the median of their own.
        settings: determine encoder, window and input size.
        config: device, encoder weights and cache; the scheduler is ignored.
        notify: receives sentences for the person.
        encoder: a loaded encoder, used if it is the one in the settings.

    Raises:
        DeviceError, WeightsError: the device or the encoder's weights are not available.
        SettingsError: the window is not valid for the case.
    """

    def __init__(
        self,
        case: Slices,
        settings: Settings,
        config: ComputeConfig,
        *,
        notify: Notify,
        encoder: Encoder | None = None,
    ) -> None:
        self._device = choose_device(config.device)
        scales, distances = [], []
        for _, part in case.parts:  # all of a case before the next, which may have to be opened
            scales.append(choose_scales(part, settings.window, settings.scaling))
            distances.append(neighbour_distance(next(iter(part.sequences.values())), scales[-1][0], settings.context))
        name = resolve_encoder(settings.encoder, weights=config.weights, device_type=self.device.type, notify=notify)
        if encoder is None or encoder.spec.name != name:
            encoder = read_encoder(name, config.weights, notify)
        self.encoder = _placed(encoder, self._device, notify)
        self.store = FeatureStore(
            case,
            self.encoder,
            input_size=settings.input_size,
            window=scales[0][0] if len(scales) == len(case.sequences) == 1 else _by_part(case, scales),
            context=median_low(distances),
            cache=FeatureCache() if config.cache else None,
            exact=settings.precision == "float32",
        )
        self.case = case
        self.decoder: Decoder | None = None
        self.numbers: list[int] = []  # class numbers of the decoder's outputs 1, 2, …
        self._finish = AS_THEY_ARE

    @property
    def device(self) -> torch.device:
        """The decoder's device: the chosen one, or the CPU after a fallback."""
        return usable(self._device)

    @property
    def is_ready(self) -> bool:
        """Whether the encoder is loaded: always."""
        return True

    @property
    def encoder_name(self) -> str:
        """The encoder in use, never ``auto``."""
        return self.encoder.spec.name

    @property
    def device_name(self) -> str:
        """The device in use: ``cpu``, ``cuda``, ``mps``."""
        return str(self.device)

    @property
    def encoded(self) -> int:
        """How many slices and views were encoded so far; 0 when all features were cached."""
        return self.store.encoded

    @property
    def encode_seconds(self) -> float:
        """Seconds of encoding so far."""
        return self.store.encode_seconds

    @property
    def descriptors(self) -> Mapping[int, NDArray[np.float32]]:
        """What the slices show that were encoded so far; see `FeatureStore`."""
        return self.store.descriptors

    def train(
        self,
        labels: dict[int, Labels],
        classes: Sequence[LabelClass],
        settings: Settings,
        cancel: Cancel | None,
        newest: Collection[int] = (),
    ) -> Generator[Event, None, TrainingResult]:
        """Train on labelled slices, as in `Compute`."""
        numbers = [entry.number for entry in classes]
        warm = self.decoder if self.numbers == numbers else None
        if warm is None:
            self._adapt({})
        examples = [self._example(index, values, numbers) for index, values in sorted(labels.items())]
        self._use_precision(settings.precision)
        trained = yield from fit(
            self.store,
            examples,
            settings,
            n_classes=len(numbers) + 1,
            device=self.device,
            warm_start=warm,
            newest=newest,
            cancel=cancel,
        )
        self.decoder, self.numbers, self._device = trained.decoder, numbers, trained.device
        self._adapt(trained.encoder_changes)
        self._finish = choose_finish(self.store, settings, (example.target for example in examples))
        self._use_input_size(trained.input_size)
        return TrainingResult(trained.steps, trained.final_loss, trained.seconds)

    def predict(
        self,
        order: Sequence[int],
        labels: dict[int, Labels],
        settings: Settings,
        report: Report,
        cancel: Cancel | None,
    ) -> Iterator[Prediction]:
        """Predict slices in the given order; the predictions hold class numbers, not indices."""
        if self.decoder is None:
            msg = "There is no trained model yet. Label a few slices and train, or load a saved model."
            raise TrainingError(msg)
        values = np.array([0, *self.numbers], dtype=np.uint16)
        labelled = {index: _to_indices(labels[index], self.numbers) for index in labels}
        for found in predict(
            self.store,
            self.decoder,
            order,
            labelled=labelled,
            tta=choose_tta(self.store, settings, len(self.numbers) + 1),
            finish=self._finish,
            resize=settings.resize,
            device=self.device,
            report=report,
            cancel=cancel,
        ):
            yield replace(found, classes=values[found.classes])

    def live(
        self,
        feed: LiveFeed,
        settings: Settings,
        report: Report,
        cancel: Cancel,
        *,
        continues: bool,
        digests: Collection[str] = (),
    ) -> Generator[Prediction | None, None, Learned | None]:
        """Learn from the labels in the feed and predict the wanted slices, until it is cancelled; see `Compute`."""
        learner: Learner | None = None
        numbers: list[int] = []
        learned_from: LiveState | None = None
        examples: dict[int, tuple[Labels, Example]] = {}  # as learned last, with the labels that they were made of
        ahead: list[int] = []  # slices to encode while there is nothing to learn
        self._use_precision(settings.precision)
        pretraining = Pretraining(self.store, settings, self.device)
        report(Progress("live", 0, 0, 0.0))  # ready
        while not cancel:
            state = feed.take(0.0 if ahead or not (learner or pretraining).sleeps else _PAUSE)
            if state is not None and state.is_enough:
                learned_from = state
                wanted = [entry.number for entry in state.classes]
                if learner is None or wanted != numbers:
                    start = self.decoder if continues and wanted == self.numbers else None
                    learner = Learner(
                        self.store,
                        settings,
                        n_classes=len(wanted) + 1,
                        device=self.device,
                        start=start,
                        learned=self._unchanged(state, digests if start is not None else ()),
                        body=(learner or pretraining).learned,
                    )
                    numbers, examples = wanted, {}
                examples = {
                    index: examples[index]
                    if index in examples and examples[index][0] is labels
                    else (labels, self._example(index, labels, numbers))
                    for index, labels in sorted(state.labels.items())
                }
                learner.update([example for _, example in examples.values()])
                learner.focus(state.order)
            elif state is not None:
                learner = None  # the last label was removed
            if state is not None:
                # All pictures: which to label first depends on what they show.
                ahead = list(state.order[:_AHEAD] if self.case.kind == "volume" else state.order)
                pretraining.focus(state.order[:_AHEAD] if self.decoder is None else ())
            if learner is None or learner.sleeps:
                self._look_ahead(ahead, pretraining if learner is None else None, report, cancel)
                yield None
                continue
            values = np.array([0, *numbers], dtype=np.uint16)
            for found in learner.burst(report=report, cancel=cancel):
                yield replace(found, classes=values[found.classes])
            report(learner.progress)
        decoder = learner.learned if learner is not None else None
        if learner is None or learned_from is None or decoder is None:
            return None
        model = self._checkpoint(decoder, learned_from.classes, learner.settings, learner.finish)
        return Learned(model, frozenset() if learner.learns else frozenset(self._digests(learned_from).values()))

    def _look_ahead(self, ahead: list[int], pretraining: Pretraining | None, report: Report, cancel: Cancel) -> None:
        """Encode the first slice of ``ahead`` and remove it; where there is none, go on with the pretraining."""
        if cancel:
            return
        if ahead:
            self.store.features(ahead.pop(0))
        elif pretraining is not None:
            pretraining.burst(report, cancel)

    def _unchanged(self, state: LiveState, digests: Collection[str]) -> list[int]:
        """The slices whose labels have one of these digests."""
        return [index for index, digest in self._digests(state).items() if digest in digests] if digests else []

    def _digests(self, state: LiveState) -> dict[int, str]:
        return {index: digest_of(self.case, index, labels) for index, labels in state.labels.items()}

    def checkpoint(self, classes: Sequence[LabelClass], settings: Settings) -> Checkpoint:
        """The decoder with all that is needed to use it on another case; without the encoder's weights."""
        if self.decoder is None:
            msg = "No trained model to save. Train first."
            raise TrainingError(msg)
        used = [entry for entry in classes if entry.number in self.numbers]
        return self._checkpoint(self.decoder, used, settings, self._finish)

    def _checkpoint(
        self, decoder: Decoder, classes: Sequence[LabelClass], settings: Settings, finish: Finish
    ) -> Checkpoint:
        return Checkpoint(
            state={name: value.detach().cpu().contiguous() for name, value in decoder.state_dict().items()},
            decoder=decoder.arguments,
            settings={
                **settings.model_dump(mode="json"),
                "encoder": self.encoder.spec.name,
                "input_size": self.store.input_size,
                "context": self.store.context,
            },
            classes=to_plain(classes),
            encoder={
                "name": self.encoder.spec.name,
                "fingerprint": self.encoder.fingerprint,
                **({"adapted": self.store.encoder.fingerprint} if self.store.encoder.changes else {}),
            },
            versions={"napari-dinoaugseg": version("napari-dinoaugseg"), "torch": torch.__version__},
            sequences=tuple(self.case.sequences),
            single=finish.single,
            redraws=finish.redraws,
            encoder_changes=self.store.encoder.changes,
        )

    def restore(self, checkpoint: Checkpoint, numbers: Sequence[int], source: Path) -> None:
        """Use a saved decoder.

        Args:
            checkpoint: the saved decoder.
            numbers: its class numbers.
            source: its file, for messages.

        Raises:
            CheckpointError: it was trained on another encoder, or does not fit its encoder and its classes.
        """
        require_encoder(checkpoint, self.encoder, source)
        try:
            decoder = build_decoder(checkpoint)
        except CheckpointError as error:
            msg = f"{source}: {error}"
            raise CheckpointError(msg) from error
        made_for = (tuple(decoder.arguments["channels"]), decoder.arguments["n_classes"])
        if made_for != (self.store.channels, len(numbers) + 1):
            msg = f"{source}: the model's decoder does not fit its encoder and classes. Train a new model."
            raise CheckpointError(msg)
        try:
            self._adapt(checkpoint.encoder_changes)
        except ValueError as error:
            msg = f"{source}: the model's weights do not fit its encoder. Copy the file again, or train a new model."
            raise CheckpointError(msg) from error
        self.decoder, self.numbers = decoder, list(numbers)
        single = tuple(output for output in checkpoint.single if output <= len(numbers))
        self._finish = Finish(single, checkpoint.redraws)
        # If memory ran out, it was trained at a smaller size than that of the settings.
        self._use_input_size(int(checkpoint.settings.get("input_size", self.store.input_size)))
        context = int(checkpoint.settings.get("context") or 0)
        if context != self.store.context:
            self.store = self.store.with_context(context)
        self._use_precision(checkpoint.settings.get("precision"))

    def forget_decoder(self) -> None:
        """Drop the decoder: the next training starts from scratch."""
        self.decoder, self.numbers, self._finish = None, [], AS_THEY_ARE
        self._adapt({})

    def close(self) -> None:
        """No-op: it uses no other machine."""

    def _example(self, index: int, labels: Labels, numbers: Sequence[int]) -> Example:
        """What is learned from the labels of a slice."""
        return Example(index, _to_indices(complete_scribbles(labels, lambda: self.store.unit(index)), numbers))

    def _adapt(self, changes: Mapping[str, Tensor]) -> None:
        """Encode with these weights of the encoder. Raises ValueError if they are not weights of it."""
        if changes is not self.store.encoder.changes and (changes or self.store.encoder.changes):
            self.store = self.store.with_encoder(self.encoder.adapted(changes))

    def _use_precision(self, precision: object) -> None:
        """Keep features in single precision for ``float32``, otherwise in half precision."""
        exact = precision == "float32"
        if exact != self.store.exact:
            self.store = self.store.with_precision(exact=exact)

    def _use_input_size(self, input_size: int) -> None:
        if input_size != self.store.input_size:
            self.store = self.store.resized(input_size)


def _by_part(case: Slices, scales: Sequence[Sequence[Scale]]) -> Callable[[int, int], Scale]:
    """The scaling of each slice of joined cases, in each sequence."""
    starts = [numbers.start for numbers, _ in case.parts]
    return lambda index, sequence: scales[bisect(starts, index) - 1][sequence]


def read_encoder(name: str, weights: Path | None, notify: Notify) -> Encoder:
    """Load an encoder, on the CPU.

    Raises:
        WeightsError: its weights are not available.
        DeviceError: not enough memory.
    """
    try:
        return load_encoder(name, weights=weights, notify=notify)
    except (RuntimeError, MemoryError) as error:
        failure = classify_error(error)
        if failure is None or failure.kind != "memory":
            raise
        msg = f"There is not enough memory to load {name}. Close other programs, or choose a smaller encoder."
        raise DeviceError(msg) from error


def require_encoder(checkpoint: Checkpoint, encoder: Encoder, source: Path) -> None:
    """Raise CheckpointError if the model in ``source`` was trained on another encoder."""
    if checkpoint.encoder["fingerprint"] != encoder.fingerprint:
        msg = (
            f"{source}: the model was trained on features of {checkpoint.encoder['name']} "
            f"({checkpoint.encoder['fingerprint']}), but the encoder here is {encoder.fingerprint}."
        )
        raise CheckpointError(msg, Hint.SAME_WEIGHTS)


def _placed(encoder: Encoder, device: torch.device, notify: Notify) -> Encoder:
    """The encoder on the device, or with a notice on the CPU if it does not fit or the device fails."""
    try:
        return encoder.to(device)
    except (RuntimeError, MemoryError) as error:
        failure = classify_error(error, device)
        if failure is None or device.type == "cpu":
            raise
    if failure.kind == "device":
        give_up(device)
        notify(f"The device '{device}' failed ({failure.reason}); going on with the CPU.")
    else:
        notify(f"The encoder does not fit into the memory of the device '{device}'; it goes on with the CPU.")
    encoder.restart_on_cpu()
    free_memory(device)
    return encoder


def _to_indices(labels: Labels, numbers: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Map class numbers to indices 0 … K, and UNKNOWN to UNKNOWN_TARGET."""
    table = np.zeros(UNKNOWN + 1, np.int16)
    table[list(numbers)] = np.arange(1, len(numbers) + 1)
    table[UNKNOWN] = UNKNOWN_TARGET
    result: np.ndarray[tuple[int, int], np.dtype[np.int16]] = table[labels]
    return result
