"""Report of a project: who labelled what, how long it took, and the card of its model; as JSON and as a page to print.

Cases are named by neutral identifiers and fingerprints. Neither files nor folders are named, because the names of
medical images often hold the name of a patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from napari_dinoaugseg.case import Case
from napari_dinoaugseg.case.files import atomic_folder, check_parent, counted
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.active_time import IDLE
from napari_dinoaugseg.session.export import case_facts, package_versions
from napari_dinoaugseg.session.labels import EVERYTHING, LabelBook, LabelClass, Status, to_plain
from napari_dinoaugseg.session.pixel_counts import PixelCounts, volumes_ml

JSON_NAME, PAGE_NAME = "report.json", "report.html"
FORMAT = "napari-dinoaugseg project report, version 1"
PURPOSE = "Research use only; not a medical device."
_COLUMNS = 6  # classes side by side in the table of volumes, so that it fits on A4


@dataclass(frozen=True)
class CaseReport:
    """One case.

    Attributes:
        identifier: a neutral name, such as ``case_007``.
        facts: its fingerprint, kind, plane and sizes, as in the report of a session.
        manual: the slices that a person painted.
        accepted: the slices whose prediction a person accepted.
        predicted: the slices with a prediction that nobody accepted.
        unseen: those with computed labels that nobody has looked at.
        confidence: of the predicted slices, 0 to 1.
        pixels: by class number, of all labels and predictions.
        volumes_ml: millilitres by class number; None if the voxel size is unknown.
        seconds: time spent on it, without idle time; None if it was not recorded.
        done: whether the person marked it as done.
        agreement: Dice (0 to 1) of its predictions with the person's corrections; None without corrections.
    """

    identifier: str
    facts: Mapping[str, Any]
    manual: tuple[int, ...]
    accepted: tuple[int, ...]
    predicted: tuple[int, ...]
    unseen: tuple[int, ...]
    confidence: Mapping[int, float]
    pixels: Mapping[int, int]
    volumes_ml: Mapping[int, float] | None
    seconds: float | None
    done: bool
    agreement: float | None = None

    @classmethod
    def of(
        cls,
        identifier: str,
        case: Case,
        book: LabelBook,
        *,
        seconds: float | None,
        done: bool,
        agreement: float | None = None,
    ) -> CaseReport:
        """Describe a case and its label book; of the case, pixels are read only if its fingerprint is not known yet."""
        slices = {status: tuple(i for i in range(book.n_slices) if book.status(i) is status) for status in EVERYTHING}
        pixels = PixelCounts().total(book)
        return cls(
            identifier=identifier,
            facts=case_facts(case),
            manual=slices[Status.MANUAL],
            accepted=slices[Status.ACCEPTED],
            predicted=slices[Status.PREDICTED],
            unseen=tuple(book.unseen()),
            confidence={i: value for i, value in book.confidence.items() if book.status(i) is Status.PREDICTED},
            pixels=pixels,
            volumes_ml=volumes_ml(case, pixels),
            seconds=seconds,
            done=done,
            agreement=agreement,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of its pixels."""
        return str(self.facts["fingerprint"])

    @property
    def n_slices(self) -> int:
        """How many slices it has."""
        return int(self.facts["slices"])

    @property
    def mean_confidence(self) -> float | None:
        """Of the predicted slices; None without one."""
        return sum(self.confidence.values()) / len(self.confidence) if self.confidence else None


@dataclass(frozen=True)
class TrainingReport:
    """One training of the model.

    Attributes:
        slices: the labelled slices it learned from, by fingerprint of the case.
        steps: optimisation steps.
        final_loss: smoothed training loss at the end.
        seconds: by stage: ``encode``, ``train``, ``predict``.
        agreement: Dice (0 to 1) of the predictions before it with the person's corrections; None without corrections.
    """

    slices: Mapping[str, tuple[int, ...]]
    steps: int
    final_loss: float | None
    seconds: Mapping[str, float]
    agreement: float | None = None


@dataclass(frozen=True)
class ModelReport:
    """The card of the model.

    Attributes:
        encoder: its name, fingerprint and whatever else a checkpoint keeps of it.
        settings: of the last training.
        trainings: oldest first.
        device: that it was trained on.
    """

    encoder: Mapping[str, Any]
    settings: Mapping[str, Any]
    trainings: tuple[TrainingReport, ...]
    device: str | None = None


@dataclass(frozen=True)
class ProjectReport:
    """A project.

    Attributes:
        classes: shared by its cases.
        cases: in the order of the project.
        model: None before the first training.
        created: time of the report, with the time zone.
    """

    classes: Sequence[LabelClass]
    cases: Sequence[CaseReport]
    model: ModelReport | None = None
    created: datetime = field(default_factory=lambda: datetime.now().astimezone())

    def total_ml(self, number: int) -> float | None:
        """The volume of a class in all cases; None if the voxel size of one of them is unknown."""
        volumes = [case.volumes_ml.get(number, 0.0) for case in self.cases if case.volumes_ml is not None]
        return sum(volumes) if len(volumes) == len(self.cases) else None

    @property
    def seconds(self) -> float | None:
        """Time spent on all cases; None if it was recorded for none."""
        recorded = [case.seconds for case in self.cases if case.seconds is not None]
        return sum(recorded) if recorded else None


def write_project_report(folder: Path, report: ProjectReport) -> list[Path]:
    """Write ``report.json`` and ``report.html`` into a folder, both or none.

    Args:
        folder: created if it does not exist; an earlier report in it is replaced, other files stay.
        report: the content.

    Returns:
        Both files.

    Raises:
        OutputError: the system refused to write.
    """
    folder = Path(folder)
    check_parent(folder)
    if folder.exists() and not folder.is_dir():
        msg = f"{folder}: this is a file, but the report goes into a folder. Name a folder."
        raise OutputError(msg)
    texts = {
        JSON_NAME: json.dumps(plain_report(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        PAGE_NAME: page_of(report),
    }
    with atomic_folder(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def plain_report(report: ProjectReport) -> dict[str, Any]:
    """Return a report as JSON values, in the words of the report of a session (`export.make_report`)."""
    return {
        "format": FORMAT,
        "purpose": PURPOSE,
        "created": report.created.isoformat(timespec="seconds"),
        "seconds": _rounded(report.seconds, 1),
        "classes": [
            {
                **plain,
                "pixels": sum(case.pixels.get(plain["number"], 0) for case in report.cases),
                "volume_ml": _rounded(report.total_ml(plain["number"])),
            }
            for plain in to_plain(report.classes)
        ],
        "cases": [_plain_case(case, report.classes) for case in report.cases],
        "model": None if report.model is None else _plain_model(report.model),
        "versions": package_versions(),
    }


def _plain_case(case: CaseReport, classes: Sequence[LabelClass]) -> dict[str, Any]:
    return {
        "identifier": case.identifier,
        "case": dict(case.facts),
        "done": case.done,
        "seconds": _rounded(case.seconds, 1),
        "slices": {
            "manual": list(case.manual),
            "accepted": list(case.accepted),
            "predicted": list(case.predicted),
            "unseen": list(case.unseen),
        },
        "confidence": {str(i): _rounded(value) for i, value in sorted(case.confidence.items())},
        "agreement": _rounded(case.agreement),
        "classes": [
            {
                "number": entry.number,
                "pixels": case.pixels.get(entry.number, 0),
                "volume_ml": None if case.volumes_ml is None else _rounded(case.volumes_ml.get(entry.number, 0.0)),
            }
            for entry in classes
        ],
    }


def _plain_model(model: ModelReport) -> dict[str, Any]:
    return {
        "encoder": dict(model.encoder),
        "device": model.device,
        "settings": dict(model.settings),
        "rounds": [
            {
                "labelled": {fingerprint: list(slices) for fingerprint, slices in training.slices.items()},
                "steps": training.steps,
                "final_loss": _rounded(training.final_loss, 6),
                "agreement": _rounded(training.agreement),
                "seconds": {stage: _rounded(value, 3) for stage, value in training.seconds.items()},
            }
            for training in model.trainings
        ],
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    """Return a number for JSON, which knows neither NaN nor infinity."""
    return round(value, digits) if value is not None and math.isfinite(value) else None


# --- the page --------------------------------------------------------------------------------------------------------

_STYLE = """
@page { size: A4; margin: 16mm 14mm; }
body { font: 10pt/1.4 system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; color: #1a1a1a; margin: 2em auto;
  max-width: 182mm; padding: 0 1em; }
h1 { font-size: 18pt; margin: 0 0 .2em; }
h2 { font-size: 13pt; margin: 1.6em 0 .4em; border-bottom: 1px solid #999; break-after: avoid; }
h3 { font-size: 11pt; margin: 1.2em 0 .3em; break-after: avoid; }
p { margin: .3em 0 .6em; }
.note { color: #555; font-size: 9pt; }
table { border-collapse: collapse; width: 100%; font-size: 9pt; margin: .3em 0 .8em; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
th, td { text-align: left; padding: .22em .5em .22em 0; border-bottom: 1px solid #ddd; vertical-align: top;
  overflow-wrap: anywhere; }
th { border-bottom: 1px solid #777; font-weight: 600; font-size: 8.5pt; overflow-wrap: normal; vertical-align: bottom; }
td:first-child { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
code { font: 8.5pt ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
.swatch { display: inline-block; width: .8em; height: .8em; border: 1px solid #666; margin-right: .4em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
tfoot { display: table-row-group; }
tfoot td { font-weight: 600; border-bottom: none; border-top: 1px solid #777; }
@media print { body { margin: 0; padding: 0; max-width: none; } }
"""
# The page loads nothing, runs nothing and sends nothing, whatever the name of a class holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class _Number:
    """A cell whose text is aligned to the right."""

    text: str


@dataclass(frozen=True)
class _Html:
    """Text that is HTML already."""

    text: str


_Cell = str | _Number | _Html


def page_of(report: ProjectReport) -> str:
    """Return the report as one HTML page for the screen and for A4, without scripts and without links to anything."""
    program = f"napari-dinoaugseg {package_versions().get('napari-dinoaugseg', '')}".strip()
    made = f"Made on {report.created:%Y-%m-%d %H:%M %Z} with {program}."
    parts = [
        "<h1>Project report</h1>",
        f'<p class="note">{escape(PURPOSE)} {escape(made)}</p>',
        *_summary(report),
        *_classes(report),
        *_cases(report),
        *_volumes(report),
        *_model(report),
        *_explanations(),
    ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Project report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(report: ProjectReport) -> Iterator[str]:
    cases = report.cases
    totals = [sum(len(getattr(case, name)) for case in cases) for name in ("manual", "accepted", "predicted")]
    n_slices = sum(case.n_slices for case in cases)
    done = sum(case.done for case in cases)
    facts = [
        f"{counted(len(cases), 'case')}, {done} of them done",
        f"{counted(n_slices, 'slice')}: {totals[0]} painted, {totals[1]} accepted, {totals[2]} predicted, "
        f"{n_slices - sum(totals)} without labels",
    ]
    if report.seconds is not None:
        facts.append(f"{duration(report.seconds)} of work")
    trainings = report.model.trainings if report.model is not None else ()
    agreements = [training.agreement for training in trainings if training.agreement is not None]
    if agreements:
        facts.append(f"predictions agreed with the last corrections by {_percent(agreements[-1])} (Dice)")
    yield f"<p>{'; '.join(escape(fact) for fact in facts)}.</p>"


def _classes(report: ProjectReport) -> Iterator[str]:
    yield "<h2>Classes</h2>"
    yield _table(
        ["Class", "Name", _Number("Pixels"), _Number("Volume in ml")],
        [
            [
                _Html(f'<span class="swatch" style="background:{escape(entry.colour)}"></span>{entry.number}'),
                entry.name,
                _Number(f"{sum(case.pixels.get(entry.number, 0) for case in report.cases):,}"),
                _Number(_decimal(report.total_ml(entry.number))),
            ]
            for entry in sorted(report.classes, key=lambda entry: entry.number)
        ],
    )


def _cases(report: ProjectReport) -> Iterator[str]:
    heads = ("Slices", "Painted", "Accepted", "Predicted", "Not seen", "Confidence", "Agreement", "Time")
    rows: list[Sequence[_Cell]] = [
        [
            case.identifier,
            _short(case.fingerprint),
            *map(_Number, map(str, _counts(case))),
            _Number(_percent(case.mean_confidence)),
            _Number(_percent(case.agreement)),
            _Number(duration(case.seconds)),
            "yes" if case.done else "no",
        ]
        for case in report.cases
    ]
    totals = [sum(column) for column in zip(*map(_counts, report.cases), strict=True)]
    work = _Number(duration(report.seconds))
    last: list[_Cell] = ["All", "", *map(_Number, map(str, totals)), "", "", work, ""]
    yield "<h2>Cases</h2>"
    yield _table(["Case", "Fingerprint", *map(_Number, heads), "Done"], rows, last if rows else None)


def _counts(case: CaseReport) -> list[int]:
    return [case.n_slices, *map(len, (case.manual, case.accepted, case.predicted, case.unseen))]


def _volumes(report: ProjectReport) -> Iterator[str]:
    """Yield tables of a few classes each: a page is not wide enough for all."""
    if all(case.volumes_ml is None for case in report.cases):
        return
    yield "<h2>Volumes in ml</h2>"
    ordered = sorted(report.classes, key=lambda entry: entry.number)
    for first in range(0, len(ordered), _COLUMNS):
        shown = ordered[first : first + _COLUMNS]
        rows: list[Sequence[_Cell]] = []
        for case in report.cases:
            volumes = [None if case.volumes_ml is None else case.volumes_ml.get(entry.number, 0.0) for entry in shown]
            rows.append([case.identifier, *(_Number(_decimal(volume)) for volume in volumes)])
        yield _table(["Case", *(_Number(entry.name) for entry in shown)], rows)


def _model(report: ProjectReport) -> Iterator[str]:
    yield "<h2>Model</h2>"
    model = report.model
    if model is None:
        yield "<p>No model has been trained.</p>"
        return
    facts = {**model.encoder, **({"device": model.device} if model.device else {})}
    yield "<h3>Encoder</h3>"
    yield _table(["Property", "Value"], [[_words(name), _text(value)] for name, value in facts.items()])
    if model.trainings:
        names = {case.fingerprint: case.identifier for case in report.cases}
        yield "<h3>Training cases</h3>"
        yield _table(
            ["Case", "Fingerprint", "Slices that the last training learned from"],
            [
                [names.get(fingerprint, "no longer in the project"), _Html(_code(fingerprint)), _ranges(slices)]
                for fingerprint, slices in model.trainings[-1].slices.items()
            ],
        )
        yield "<h3>Trainings</h3>"
        heads = ("Training", "Cases", "Slices", "Steps", "Final loss", "Agreement before", "Time")
        yield _table(
            [_Number(head) for head in heads],
            [
                [
                    _Number(str(number)),
                    _Number(str(len(training.slices))),
                    _Number(str(sum(map(len, training.slices.values())))),
                    _Number(str(training.steps)),
                    _Number(_decimal(training.final_loss, 4)),
                    _Number(_percent(training.agreement)),
                    _Number(duration(sum(training.seconds.values()))),
                ]
                for number, training in enumerate(model.trainings, 1)
            ],
        )
    yield "<h3>Settings of the last training</h3>"
    yield _table(["Setting", "Value"], [[_words(name), _text(value)] for name, value in model.settings.items()])


def _explanations() -> Iterator[str]:
    yield "<h2>How to read this</h2>"
    yield (
        '<p class="note">Painted: slices labelled by hand. Accepted: predictions that a person accepted as labels. '
        "Predicted: predictions that nobody has accepted. Not seen: slices whose labels were computed and that nobody "
        "has looked at. Confidence: the Dice that the model expects of its own predictions. Agreement: the Dice of "
        "predictions with what a person painted over them afterwards; it is measured where the person chose to "
        f"correct, not on independent cases. Time: pauses of more than {IDLE:.0f} seconds between two "
        "actions are left out. Volumes include predictions. A fingerprint is a hash of the pixels of a case.</p>"
    )
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    yield f'<p class="note">Versions: {escape(versions)}.</p>'


def _table(head: Sequence[_Cell], rows: Iterable[Sequence[_Cell]], foot: Sequence[_Cell] | None = None) -> str:
    body = [_row(row, "td") for row in rows]
    if not body:
        return "<p>None.</p>"
    last = f"\n<tfoot>\n{_row(foot, 'td')}\n</tfoot>" if foot is not None else ""
    lines = "\n".join(body)
    return f"<table>\n<thead>\n{_row(head, 'th')}\n</thead>\n<tbody>\n{lines}\n</tbody>{last}\n</table>"


def _row(cells: Sequence[_Cell], tag: str) -> str:
    made = []
    for cell in cells:
        attribute = ' class="number"' if isinstance(cell, _Number) else ""
        text = cell if isinstance(cell, str) else cell.text
        made.append(f"<{tag}{attribute}>{text if isinstance(cell, _Html) else escape(text)}</{tag}>")
    return f"<tr>{''.join(made)}</tr>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _short(fingerprint: str) -> _Html:
    return _Html(_code(fingerprint[:8]))


def _decimal(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def duration(seconds: float | None) -> str:
    """Return a time for a person: ``45 s``, ``3 min 20 s``, ``2 h 5 min``; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _ranges(numbers: Iterable[int]) -> str:
    """Return slice numbers with ranges: ``3, 7–9``."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in found)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: Any) -> str:
    """Return a JSON value for a person."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(name))} {_text(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(one) for one in value)
    return str(value)
