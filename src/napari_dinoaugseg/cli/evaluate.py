"""`dinoaugseg evaluate` and `dinoaugseg simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_dinoaugseg.case import MaskOptions
from napari_dinoaugseg.case.case import ReadLabels
from napari_dinoaugseg.cli.options import SimulateOptions
from napari_dinoaugseg.cli.output import ProgressLine, note, parse_counts, parse_slices, print_json, print_text, tell
from napari_dinoaugseg.errors import SettingsError
from napari_dinoaugseg.session.evaluation import ClassResult, Evaluation, SimulatedRound, evaluate, simulate
from napari_dinoaugseg.session.session import Session


def run_evaluate(
    prediction: Path,
    truth: Path,
    slices: str | None,
    exclude: str | None,
    plane: str | None,
    masks: MaskOptions,
    *,
    as_json: bool,
) -> None:
    """Compare masks and print the figures."""
    if masks != MaskOptions() and truth.is_file():
        msg = f"{truth}: --mask-orientation and --ignore are for folders with masks of pictures. Leave them out."
        raise SettingsError(msg)
    result = evaluate(
        prediction,
        truth,
        slices=parse_slices(slices) if slices is not None else None,
        exclude=parse_slices(exclude) if exclude is not None else (),
        plane=plane,
        masks=masks,
    )
    for notice in result.notices:
        note(notice)
    if result.unmatched:
        tell(f"Note: {result.unmatched} masks in {truth} have no prediction in {prediction}; they are not counted.")
    if as_json:
        print_json(_as_json(result))
    else:
        _print_table(result)


def _as_json(result: Evaluation) -> dict[str, Any]:
    unit = result.unit
    mean = {"dice": result.mean("dice"), f"hd95_{unit}": result.mean("hd95"), f"asd_{unit}": result.mean("asd")}
    classes = {str(number): _class_as_json(number, entry, unit) for number, entry in result.classes.items()}
    return {"classes": classes, "mean": mean, "slices": result.slices}


def _class_as_json(number: int, entry: ClassResult, unit: str) -> dict[str, Any]:
    volume = ("volume_ml", "truth_volume_ml") if unit == "mm" else ("size_px", "truth_size_px")
    return {
        "name": f"class {number}",
        "dice": entry.dice,
        f"hd95_{unit}": entry.hd95,
        f"asd_{unit}": entry.asd,
        volume[0]: entry.volume,
        volume[1]: entry.truth_volume,
    }


def _print_table(result: Evaluation) -> None:
    unit = result.unit
    size = "ml" if unit == "mm" else "px"
    print_text(
        f"{'class':>6} {'Dice':>7} {f'HD95 {unit}':>9} {f'ASD {unit}':>8} {f'volume {size}':>11} {f'truth {size}':>11}"
    )
    for number, entry in result.classes.items():
        print_text(
            f"{number:>6} {entry.dice:>7.4f} {_text(entry.hd95):>9} {_text(entry.asd):>8} "
            f"{entry.volume:>11.2f} {entry.truth_volume:>11.2f}"
        )
    mean = [result.mean(name) for name in ("dice", "hd95", "asd")]
    print_text(f"{'mean':>6} {mean[0]:>7.4f} {_text(mean[1]):>9} {_text(mean[2]):>8}")
    print_text(f"over {result.slices} slices" if unit == "mm" else f"over {result.slices} slices or pictures")


def _text(distance: float | None) -> str:
    return "-" if distance is None else f"{distance:.2f}"


def run_simulate(options: SimulateOptions) -> None:
    """Run the simulated rounds and print the Dice of the slices that were not labelled."""
    counts = parse_counts(options.slices_per_round, options.rounds)
    settings = options.settings
    case = options.open_case()
    truth = case.read_labels(options.truth, None)
    for notice in truth.notices if isinstance(truth, ReadLabels) else ():
        note(notice)
    session = Session(case, settings, options.compute, notify=tell)
    rounds: list[SimulatedRound] = []
    with ProgressLine().live() as line:
        line.follow(
            simulate(session, truth, counts, options.strategy.value, options.seed, report=line.show), rounds.append
        )
    if options.json:
        print_json({"rounds": [_round_as_json(entry) for entry in rounds], "strategy": str(options.strategy)})
        return
    print_text(f"{'round':>5} {'slices':>6} {'Dice':>7} {'seconds':>8}  labelled")
    for number, entry in enumerate(rounds, start=1):
        mean = "-" if entry.mean_dice is None else f"{entry.mean_dice:.4f}"
        listed = ", ".join(str(index) for index in entry.labelled)
        print_text(f"{number:>5} {len(entry.labelled):>6} {mean:>7} {entry.seconds:>8.1f}  {listed}")
    how = f"strategy {options.strategy}, encoder {session.encoder_name}"
    print_text(f"Dice over the slices that were not labelled; {how}")


def _round_as_json(entry: SimulatedRound) -> dict[str, Any]:
    return {
        "labelled": entry.labelled,
        "dice": {str(number): value for number, value in entry.dice.items()},
        "mean_dice": entry.mean_dice,
        "seconds": round(entry.seconds, 3),
    }
