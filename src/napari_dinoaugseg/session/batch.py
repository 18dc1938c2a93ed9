"""One study after the other with one model: what every process that predicts a cohort does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from napari_dinoaugseg.errors import CheckpointError, DinoAugSegError, one_line
from napari_dinoaugseg.learning.events import Notice
from napari_dinoaugseg.session.cohort import CohortStudy
from napari_dinoaugseg.session.predicted import Attempt, Origin
from napari_dinoaugseg.session.predicting import SavedModel, fingerprint_of
from napari_dinoaugseg.study import open_study


@dataclass(frozen=True)
class Plan:
    """How every study of a cohort is predicted; plain values, for it travels to other machines.

    Attributes:
        model: the model file.
        fingerprint: a hash of that file, see `predicting.fingerprint_of`.
        plane: slicing plane, by name; None = the one with the finest pixels.
        series: which DICOM series.
        component: which time point or channel.
        window: of intensities; None = the one that the model was trained with.
        device: where to compute.
        weights: a file with encoder weights.
        cache: keep features on disk.
    """

    model: Path
    fingerprint: str
    plane: str | None = None
    series: str | None = None
    component: int | None = None
    window: str | None = None
    device: str = "auto"
    weights: Path | None = None
    cache: bool = True

    @property
    def origin(self) -> Origin:
        """What the masks come from."""
        options = json.dumps([self.plane, self.series, self.component, self.window])
        return Origin(self.fingerprint, hashlib.blake2b(options.encode(), digest_size=16).hexdigest())


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        reason: why it failed, in one line; None when mask and report are written.
        seconds: that it took.
        notices: sentences that a person should read.
    """

    reason: str | None
    seconds: float
    notices: tuple[str, ...] = ()


class Batch:
    """A model, loaded once, and the studies that it is used on."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._said: list[str] = []
        self._model = SavedModel(
            plan.model, device=plan.device, weights=plan.weights, cache=plan.cache, say=self._said.append
        )

    def load(self) -> None:
        """Load model and encoder, unless that was done before.

        Raises:
            CheckpointError: the model cannot be used, or is not the one that was planned with.
            WeightsError, DeviceError, SettingsError: as for a session.
        """
        if fingerprint_of(self._plan.model) != self._plan.fingerprint:
            msg = f"{self._plan.model}: this is not the model that the prediction began with. Start again."
            raise CheckpointError(msg)
        self._model.load()

    def predict(self, study: CohortStudy) -> Outcome:
        """Predict a study and write its mask and report. Never raises: a broken study must not stop the others."""
        started = time.monotonic()
        reason, notices = None, list[str]()
        try:
            self._predict(study, notices)
        except DinoAugSegError as error:
            reason = str(error)
        except Exception as error:  # whatever it is, the other studies can do without this one
            reason = f"{type(error).__name__}: {error}"
        said = [*self._said, *notices]
        self._said.clear()
        return Outcome(one_line(reason) if reason is not None else None, time.monotonic() - started, tuple(said))

    def _predict(self, place: CohortStudy, notices: list[str]) -> None:
        plan = self._plan
        # Opened first: it says best what is wrong with a file.
        study = open_study(place.path, plane=plan.plane, series=plan.series, component=plan.component)
        notices.extend(study.notices)
        study.check_output(place.mask, [plan.model, *([plan.weights] if plan.weights else [])])
        attempt = Attempt(place, plan.origin)
        session = self._model.session(study, plan.window)
        for event in session.predict():
            if isinstance(event, Notice):
                notices.append(event.text)
        attempt.write(session)


@lru_cache(maxsize=1)
def batch_of(plan: Plan) -> Batch:
    """The batch of this process: a worker keeps its model from one study to the next."""
    return Batch(plan)


def predict_here(studies: Iterable[CohortStudy], plan: Plan) -> Generator[tuple[CohortStudy, Outcome], None, None]:
    """Predict one study after the other in this process.

    Raises:
        CheckpointError, WeightsError, DeviceError, SettingsError: nothing can be predicted with this model here.
    """
    batch = Batch(plan)
    batch.load()
    for study in studies:
        yield study, batch.predict(study)
