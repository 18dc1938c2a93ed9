"""`dinoaugseg segment` and `dinoaugseg predict`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case, MaskOptions, open_case
from napari_dinoaugseg.case.files import check_not_input, check_parent
from napari_dinoaugseg.cli.output import ProgressLine, note, parse_slices, print_json, print_text, tell
from napari_dinoaugseg.errors import LabelError, OutputError, SettingsError
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.batch import SavedModel
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.index import Round
from napari_dinoaugseg.session.session import Session


@dataclass(frozen=True)
class CaseJob:
    """What `segment` and `predict` have in common; the fields are the command's options."""

    case: Path
    out: Path
    plane: str | None
    component: int | None
    series: str | None
    weights: Path | None
    settings: Mapping[str, Any]
    device: str
    confidence_out: Path | None
    masks: MaskOptions
    cache: bool

    def open(self) -> Case:
        """The case, with its notices told."""
        case = open_case(self.case, plane=self.plane, series=self.series, component=self.component, masks=self.masks)
        require_pictures(case, self.masks)
        for notice in case.notices:
            note(notice)
        return case

    def check_outputs(self, case: Case, inputs: list[Path]) -> None:
        """Refuse what cannot be written before anything is computed."""
        case.check_output(self.out, inputs)
        if self.confidence_out is not None:
            case.check_output(self.confidence_out, [self.out, *inputs])


@dataclass(frozen=True)
class SegmentJob(CaseJob):
    """The options of `segment`."""

    labels: Path
    slices: str | None
    preset: str
    warm_start: Path | None
    model_out: Path | None


@dataclass(frozen=True)
class PredictJob(CaseJob):
    """The options of `predict`."""

    model: Path


def run_segment(job: SegmentJob, *, as_json: bool) -> None:
    """Learn from the labelled slices, predict the others, write everything that was asked for."""
    started = time.monotonic()
    settings = Settings.of_preset(job.preset, **job.settings)
    case = job.open()
    inputs = [job.labels, *([job.warm_start] if job.warm_start else []), *_files_of(job.weights)]
    job.check_outputs(case, inputs)
    if job.model_out is not None:
        check_model_output(
            job.model_out, [job.case, job.out, *([job.confidence_out] if job.confidence_out else []), *inputs]
        )
    session = Session(case, settings, ComputeConfig(job.device, job.weights, job.cache), notify=tell)
    slices = parse_slices(job.slices) if job.slices is not None else None
    labelled = session.load_labels(job.labels, slices)
    if not session.labels.classes:
        msg = f"{job.labels}: the named slices hold only background. Name at least one slice with paint (--slices)."
        raise LabelError(msg)
    if job.warm_start is not None:
        session.load_model(job.warm_start, window=job.settings.get("window"))
    tell(f"{case.name}: {case.n_slices} slices, {len(labelled)} labelled; encoder {session.encoder_name}")
    confidence = Confidence(case) if job.confidence_out else None
    with ProgressLine().live() as line:
        done = line.run(session.train())
        predicted = _predict(session, line, labelled[len(labelled) // 2], confidence) - set(labelled)
    session.export(job.out, keep_unknown=True)
    if job.model_out is not None:
        session.save_model(job.model_out)
    if job.confidence_out is not None and confidence is not None:
        case.write_confidence(job.confidence_out, confidence)
    _report(
        session, settings.preset, job.out, job.model_out, done, len(labelled), len(predicted), started, as_json=as_json
    )


def run_predict(job: PredictJob, *, as_json: bool) -> None:
    """Predict every slice of a case with a saved model."""
    started = time.monotonic()
    case = job.open()
    job.check_outputs(case, [job.model, *_files_of(job.weights)])
    model = SavedModel(job.model, ComputeConfig(job.device, job.weights, job.cache), notify=tell)
    session = model.session(case, job.settings.get("window"))
    tell(f"{case.name}: {case.n_slices} slices; encoder {session.encoder_name}")
    confidence = Confidence(case) if job.confidence_out else None
    with ProgressLine().live() as line:
        predicted = _predict(session, line, 0, confidence)
    session.export(job.out)
    if job.confidence_out is not None and confidence is not None:
        case.write_confidence(job.confidence_out, confidence)
    _report(session, model.preset, job.out, None, None, 0, len(predicted), started, as_json=as_json)


def require_pictures(case: Case, masks: MaskOptions) -> None:
    """Refuse options that are about masks of pictures where the case is none. Raises SettingsError."""
    if case.kind != "pictures" and masks != MaskOptions():
        msg = f"{case.name}: --mask-orientation and --ignore are about masks of pictures, and this is a volume."
        raise SettingsError(f"{msg} Leave them out.")


def _files_of(weights: Path | None) -> list[Path]:
    """The weights that were named; of a folder all files in it, which a result must not replace."""
    if weights is None or not weights.is_dir():
        return [weights] if weights is not None else []
    return [weights, *weights.glob("*")]


class Confidence:
    """The confidence of each pixel, kept as 8-bit numbers until it is written; labelled slices are certain (1)."""

    def __init__(self, case: Case) -> None:
        self._shape_of: Callable[[int], tuple[int, int]] = case.slice_shape
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def keep(self, prediction: Prediction) -> None:
        """Remember the map of a predicted slice."""
        self._maps[prediction.index] = np.round(prediction.pixel_confidence * 255).astype(np.uint8)

    def __call__(self, index: int) -> NDArray[np.float32]:
        """The map of a slice, (H, W) float32 in 0 to 1."""
        kept = self._maps.get(index)
        if kept is None:
            return np.ones(self._shape_of(index), np.float32)
        return kept.astype(np.float32) / np.float32(255)


def check_model_output(path: Path, others: list[Path]) -> None:
    """Refuse a model file that could not be written, before anything is computed."""
    if path.suffix != ".safetensors":
        msg = f"{path}: a model is saved as .safetensors. Choose such a name."
        raise OutputError(msg)
    if path.is_dir():
        msg = f"{path}: this is a folder, but a model is one file. Choose another name."
        raise OutputError(msg)
    check_parent(path)
    check_not_input(path, others)


def _predict(session: Session, line: ProgressLine, centre: int, confidence: Confidence | None) -> set[int]:
    """Predict what is not labelled, or not wholly; returns the slices."""
    predicted: set[int] = set()

    def take(prediction: Prediction) -> None:
        predicted.add(prediction.index)
        if confidence is not None:
            confidence.keep(prediction)

    line.follow(session.predict(centre, report=line.show), take)
    return predicted


def _report(
    session: Session,
    preset: str,
    out: Path,
    model: Path | None,
    done: Round | None,
    labelled: int,
    predicted: int,
    started: float,
    *,
    as_json: bool,
) -> None:
    seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
    seconds["total"] = round(time.monotonic() - started, 3)
    if as_json:
        print_json(
            {
                "mask": str(out),
                "encoder": session.encoder_name,
                "preset": preset,
                "device": session.device_name,
                "slices": {"total": session.case.n_slices, "labelled": labelled, "predicted": predicted},
                "encoded": session.encoded,
                "seconds": seconds,
                "steps": done.steps if done else 0,
                "final_loss": done.final_loss if done else None,
                "model": str(model) if model else None,
            }
        )
        return
    print_text(f"mask      {out}")
    if model:
        print_text(f"model     {model}")
    print_text(f"slices    {session.case.n_slices}: {labelled} labelled, {predicted} predicted")
    if done:
        print_text(f"training  {done.steps} steps, final loss {done.final_loss:.3f}")
    parts = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    print_text(f"seconds   {parts}  ({session.encoder_name} on {session.device_name}, preset {preset})")
    least = session.suggest()
    if done and least and least[0].confidence is not None:
        print_text(f"next      label {session.case.slice_name(least[0].index)}: {least[0].reason}")
