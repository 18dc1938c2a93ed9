"""The report of a project: the same facts as JSON and as a page that prints, and nothing that could name a patient."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg import __version__
from napari_dinoaugseg.case import Case, open_case
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.labels import LabelBook, LabelClass, new_class
from napari_dinoaugseg.session.project_report import (
    CaseReport,
    ModelReport,
    ProjectReport,
    TrainingReport,
    duration,
    page_of,
    write_project_report,
)
from tests.case.builders import GREY, numbers, pictures, save, write_nifti

CLASSES = (new_class(1, "liver"), LabelClass(3, "<script>alert('x')</script> & co", "#d55e00"))


def worked_on(case: Case) -> LabelBook:
    """Slice 0 painted, 1 accepted, 2 predicted; nobody has looked at the last."""
    book = LabelBook(case.slice_shape, case.n_slices)
    labels = np.zeros(case.slice_shape(0), np.uint16)
    labels[0], labels[1, :2] = 1, 3
    book.label({0: labels}, classes=CLASSES)
    for i, seen in ((1, True), (2, False)):
        book.set_prediction(i, np.ones(case.slice_shape(i), np.uint16), 0.9 - 0.1 * i, seen=seen)
    book.accept(1)
    return book


@pytest.fixture
def case(tmp_path: Path) -> Case:
    folder = tmp_path / "Meyer^Anna"
    folder.mkdir()
    return open_case(write_nifti(folder / "MEYER_1960.nii", numbers((6, 7, 5)), np.diag([-2.0, -2.0, 5.0, 1.0])))


@pytest.fixture
def report(case: Case) -> ProjectReport:
    first = CaseReport.of("case_001", case, worked_on(case), seconds=372.4, done=True, agreement=0.87)
    empty = LabelBook(case.slice_shape, case.n_slices)
    second = replace(
        CaseReport.of("case_002", case, empty, seconds=None, done=False),
        facts={**first.facts, "fingerprint": "f" * 32},
    )
    trainings = (
        TrainingReport({case.fingerprint: (0,)}, 117, 0.4, {"encode": 1.0, "train": 60.25, "predict": 2.0}),
        TrainingReport({case.fingerprint: (0, 1), "e" * 32: (7, 8, 9, 11)}, 330, math.nan, {"train": 61.0}, 0.912),
    )
    model = ModelReport({"name": "efficientnet-lite0", "fingerprint": "abc"}, {"steps": 330, "window": None}, trainings)
    return ProjectReport(CLASSES, [first, second], model, datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))


class Page(HTMLParser):
    """Rows of cells, and every tag and attribute; refuses what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str, at: int = 0) -> list[str]:
        return [row for row in self.rows if row[0] == first][at]


def test_the_json_holds_what_the_report_of_a_session_holds_for_each_case(
    report: ProjectReport, case: Case, tmp_path: Path
) -> None:
    assert write_project_report(tmp_path / "out", report) == [
        tmp_path / "out" / "report.json",
        tmp_path / "out" / "report.html",
    ]
    made = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert made["created"] == "2026-05-04T03:02:01+00:00"
    assert made["seconds"] == 372.4
    assert made["versions"]["napari-dinoaugseg"] == __version__
    assert "Research use only" in made["purpose"]
    first, second = made["cases"]
    assert (first["identifier"], first["done"], first["seconds"], first["agreement"]) == ("case_001", True, 372.4, 0.87)
    assert first["case"]["fingerprint"] == case.fingerprint
    assert first["case"]["slices"] == 5
    assert first["slices"] == {"manual": [0], "accepted": [1], "predicted": [2], "unseen": [2]}
    assert first["confidence"] == {"2": 0.7}
    pixels = 6 + 42 + 42  # a row of the painted slice, and two whole slices
    assert first["classes"][0] == {"number": 1, "pixels": pixels, "volume_ml": pytest.approx(pixels * 0.02)}
    assert second["slices"] == {"manual": [], "accepted": [], "predicted": [], "unseen": []}
    assert second["seconds"] is None
    assert made["classes"][0]["name"] == "liver"
    assert made["classes"][0]["volume_ml"] == pytest.approx(pixels * 0.02)
    assert made["model"]["encoder"]["name"] == "efficientnet-lite0"
    rounds = made["model"]["rounds"]
    assert rounds[0]["labelled"] == {case.fingerprint: [0]}
    assert rounds[1]["agreement"] == 0.912
    assert rounds[1]["final_loss"] is None  # a loss that is not finite is no JSON


def test_the_page_holds_the_same_and_nothing_that_runs_or_loads(report: ProjectReport, case: Case) -> None:
    text = page_of(report)
    page = Page(text)
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "code"),
        *("table", "thead", "tbody", "tfoot", "tr", "th", "td"),
    }
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "style"}
    assert not re.search(r"url\(|@import|https?:|//", text)
    assert "default-src 'none'" in text
    assert "size: A4" in text
    assert page.row("3")[:2] == ["3", "<script>alert('x')</script> & co"]
    row = page.row("case_001")
    assert row == ["case_001", case.fingerprint[:8], "5", "1", "1", "1", "1", "70 %", "87 %", "6 min 12 s", "yes"]
    assert page.row("All")[2:7] == ["10", "1", "1", "1", "1"]
    assert page.row("case_001", 2) == ["case_001", case.fingerprint, "0–1"]
    assert page.row("no longer in the project") == ["no longer in the project", "e" * 32, "7–9, 11"]
    assert page.row("2") == ["2", "2", "6", "330", "–", "91 %", "1 min 1 s"]
    assert "2 cases, 1 of them done; 10 slices: 1 painted, 1 accepted, 1 predicted, 7 without labels" in page.text


def test_neither_names_a_file_or_a_folder(report: ProjectReport, tmp_path: Path) -> None:
    for path in write_project_report(tmp_path / "out", report):
        text = path.read_text(encoding="utf-8").casefold()
        assert "meyer" not in text
        assert "anna" not in text
        assert str(tmp_path).casefold() not in text


def test_volumes_of_many_classes_are_split_to_fit_the_page(report: ProjectReport) -> None:
    many = replace(report, classes=[new_class(number) for number in range(1, 15)])
    page = Page(page_of(many))
    heads = [row for row in page.rows if row[0] == "Case" and row[1].startswith("class")]
    assert [len(row) - 1 for row in heads] == [6, 6, 2]


def test_pictures_have_no_volumes(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", GREY)
    case = pictures(tmp_path / "in")
    report = ProjectReport(CLASSES, [CaseReport.of("case_001", case, worked_on(case), seconds=5.0, done=False)])
    text = page_of(report)
    assert "Volumes in ml" not in text
    assert Page(text).row("1")[-1] == "–"
    made = json.loads(write_project_report(tmp_path / "out", report)[0].read_text(encoding="utf-8"))
    assert made["classes"][0]["volume_ml"] is made["cases"][0]["classes"][0]["volume_ml"] is None


def test_an_empty_project_has_a_report(tmp_path: Path) -> None:
    report = ProjectReport([], [])
    made = json.loads(write_project_report(tmp_path / "out", report)[0].read_text(encoding="utf-8"))
    assert (made["cases"], made["model"], made["seconds"]) == ([], None, None)
    page = Page(page_of(report))
    assert "No model has been trained." in page.text
    assert "0 cases, 0 of them done" in page.text


def test_an_earlier_report_is_replaced_and_masks_beside_it_stay(report: ProjectReport, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_project_report(folder, ProjectReport([], []))
    (folder / "case_001.nii.gz").write_bytes(b"mask")
    write_project_report(folder, report)
    assert sorted(path.name for path in folder.iterdir()) == ["case_001.nii.gz", "report.html", "report.json"]
    assert len(json.loads((folder / "report.json").read_text(encoding="utf-8"))["cases"]) == 2


def test_a_place_that_cannot_be_is_refused(report: ProjectReport, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_project_report(tmp_path / "nowhere" / "out", report)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="this is a file"):
        write_project_report(tmp_path / "file", report)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3599.7, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_times_are_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
