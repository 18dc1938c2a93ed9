"""`dinoaugseg segment` and `dinoaugseg predict`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.files import check_not_input, check_parent
from napari_dinoaugseg.case.itksnap import SUFFIXES as DESCRIPTION_SUFFIXES
from napari_dinoaugseg.cli.options import PredictOptions, SegmentOptions
from napari_dinoaugseg.cli.output import ProgressLine, parse_slices, print_json, print_text, tell
from napari_dinoaugseg.errors import LabelError, OutputError
from napari_dinoaugseg.learning.events import Prediction
from napari_dinoaugseg.session.batch import SavedModel
from napari_dinoaugseg.session.export import write_label_table
from napari_dinoaugseg.session.index import Round
from napari_dinoaugseg.session.session import Session


def run_segment(options: SegmentOptions) -> None:
    """Train on the labelled slices, predict the others, and write the requested files."""
    started = time.monotonic()
    settings = options.settings
    case = options.open_case()
    inputs = [options.labels, *([options.warm_start] if options.warm_start else []), *_files_of(options.weights)]
    _check_outputs(options, case, inputs)
    if options.model_out is not None:
        results = [path for path in (options.out, options.confidence_out, options.label_table_out) if path is not None]
        check_model_output(options.model_out, [options.case, *results, *inputs])
    session = Session(case, settings, options.compute, notify=tell)
    slices = parse_slices(options.slices) if options.slices is not None else None
    labelled = session.load_labels(options.labels, slices)
    if not session.labels.classes:
        msg = f"{options.labels}: the named slices hold only background. Name at least one slice with paint (--slices)."
        raise LabelError(msg)
    if options.warm_start is not None:
        session.load_model(options.warm_start, window=options.window)
    tell(f"{case.name}: {case.n_slices} slices, {len(labelled)} labelled; encoder {session.encoder_name}")
    confidence = Confidence(case) if options.confidence_out else None
    with ProgressLine().live() as line:
        done = line.run(session.train())
        predicted = _predict(session, line, labelled[len(labelled) // 2], confidence) - set(labelled)
    session.export(options.out, keep_unknown=True)
    if options.label_table_out is not None:
        write_label_table(options.label_table_out, session)
    if options.model_out is not None:
        session.save_model(options.model_out)
    if options.confidence_out is not None and confidence is not None:
        case.write_confidence(options.confidence_out, confidence)
    _report(options, session, settings.preset, done, options.model_out, len(labelled), len(predicted), started)


def run_predict(options: PredictOptions) -> None:
    """Predict every slice of a case with a saved model."""
    started = time.monotonic()
    case = options.open_case()
    _check_outputs(options, case, [options.model, *_files_of(options.weights)])
    model = SavedModel(options.model, options.compute, notify=tell)
    session = model.session(case, options.window)
    tell(f"{case.name}: {case.n_slices} slices; encoder {session.encoder_name}")
    confidence = Confidence(case) if options.confidence_out else None
    with ProgressLine().live() as line:
        predicted = _predict(session, line, 0, confidence)
    session.export(options.out)
    if options.label_table_out is not None:
        write_label_table(options.label_table_out, session)
    if options.confidence_out is not None and confidence is not None:
        case.write_confidence(options.confidence_out, confidence)
    _report(options, session, model.preset, None, None, 0, len(predicted), started)


def _check_outputs(options: SegmentOptions | PredictOptions, case: Case, inputs: list[Path]) -> None:
    """Raise an error for outputs that cannot be written, before anything is computed."""
    case.check_output(options.out, inputs)
    if options.confidence_out is not None:
        case.check_confidence_output(options.confidence_out, [options.out, *inputs])
    if options.label_table_out is not None:
        table = options.label_table_out
        if table.suffix.lower() not in DESCRIPTION_SUFFIXES:
            msg = f"{table}: label descriptions must end in {' or '.join(DESCRIPTION_SUFFIXES)}. Change the suffix."
            raise OutputError(msg)
        results = [options.out, *([options.confidence_out] if options.confidence_out else [])]
        check_not_input(table, [options.case, *results, *inputs])
        check_parent(table)


def _files_of(weights: Path | None) -> list[Path]:
    """The files of the given weights, for a folder all files in it, which a result must not replace."""
    if weights is None or not weights.is_dir():
        return [weights] if weights is not None else []
    return [weights, *weights.glob("*")]


class Confidence:
    """The confidence of each pixel, stored in 8 bits until it is written; 1 on labelled slices."""

    def __init__(self, case: Case) -> None:
        self._shape_of: Callable[[int], tuple[int, int]] = case.slice_shape
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def keep(self, prediction: Prediction) -> None:
        """Store the map of a predicted slice."""
        self._maps[prediction.index] = np.round(prediction.pixel_confidence * 255).astype(np.uint8)

    def __call__(self, index: int) -> NDArray[np.float32]:
        """The map of a slice, (H, W) float32 in 0 to 1."""
        kept = self._maps.get(index)
        if kept is None:
            return np.ones(self._shape_of(index), np.float32)
        return kept.astype(np.float32) / np.float32(255)


def check_model_output(path: Path, others: list[Path]) -> None:
    """Raise OutputError for a model file that could not be written, before anything is computed."""
    if path.suffix != ".safetensors":
        msg = f"{path}: a model is saved as .safetensors. Choose such a name."
        raise OutputError(msg)
    if path.is_dir():
        msg = f"{path}: this is a folder, but a model is one file. Choose another name."
        raise OutputError(msg)
    check_parent(path)
    check_not_input(path, others)


def _predict(session: Session, line: ProgressLine, centre: int, confidence: Confidence | None) -> set[int]:
    """Predict the slices that are not labelled as a whole; returns their indices."""
    predicted: set[int] = set()

    def take(prediction: Prediction) -> None:
        predicted.add(prediction.index)
        if confidence is not None:
            confidence.keep(prediction)

    line.follow(session.predict(centre, report=line.show), take)
    return predicted


def _report(
    options: SegmentOptions | PredictOptions,
    session: Session,
    preset: str,
    done: Round | None,
    model: Path | None,
    labelled: int,
    predicted: int,
    started: float,
) -> None:
    seconds = {stage: round(value, 3) for stage, value in session.seconds.items()}
    seconds["total"] = round(time.monotonic() - started, 3)
    if options.json:
        print_json(
            {
                "mask": str(options.out),
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
    print_text(f"mask      {options.out}")
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
