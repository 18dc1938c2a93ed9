"""`dinoaugseg pacs`, against a PACS on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from tests.case.builders import listing
from tests.pacs.conftest import PASSWORD, SERIES, STUDY, pacs, slices  # noqa: F401 - fixtures

SECRET = {"DINOAUGSEG_PACS_PASSWORD": PASSWORD}


def write_mask(series: Path, path: Path) -> None:
    case = open_case(series)
    shape = (case.n_slices, *case.slice_shape(0))
    case.write_mask(path, np.ones(shape, np.uint16).__getitem__, [Segment(1, "Liver", "#e69f00")])


def test_a_person_finds_fetches_and_sends_back(dinoaugseg, pacs, slices, tmp_path):  # noqa: F811
    pacs.asks_for("ann", PASSWORD)
    here = (pacs.url, "--user", "ann")
    listed = dinoaugseg("pacs", "find", *here, "--patient", "PID7731", **SECRET)
    assert "2024-03-05  Quastenflosser Xaverine (PID7731)  CT  Abdomen with contrast" in listed.output
    assert f"--study {STUDY} --series {SERIES}" in listed.output
    assert "is not encrypted" in listed.errors
    got = dinoaugseg("pacs", "get", *here, "--study", STUDY, "--out", "series", "--json", **SECRET).json
    assert got == {"folder": "series", "images": len(slices)}
    assert sorted(listing(tmp_path / "series").values()) == sorted(path.read_bytes() for path in slices)
    write_mask(tmp_path / "series", tmp_path / "mask.dcm")
    sent = dinoaugseg("pacs", "send", *here, "mask.dcm", "--json", **SECRET).json["stored"]
    assert [(entry["path"], entry["kind"], entry["study"]) for entry in sent] == [("mask.dcm", "SEG", STUDY)]
    found = dinoaugseg("pacs", "find", *here, "--json", **SECRET).json["series"]
    assert sorted(series["modality"] for series in found) == ["CT", "SEG"]
    for outcome in (listed, dinoaugseg("pacs", "find", *here, **SECRET)):
        assert PASSWORD not in outcome.output + outcome.errors
    assert PASSWORD.encode() not in b"".join(listing(tmp_path).values())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("find", "URL", "--user", "ann"), "does not accept the user name and password.*--ask"),
        (("find", "URL"), "asks for a user name and password.*--user"),
        (("get", "URL", "--study", "1.2.3", "--out", "new"), "asks for"),
        (("find", "URL", "--offline"), "network is switched off.*--offline"),
        (("find", "http://127.0.0.1:1/dicom-web"), "cannot be reached"),
        (("find", "URL", "--date", "soon"), "is not a date"),
        (("find", "pacs.example.org"), "not the address of a PACS"),
        (("send", "URL", "none.dcm"), "none.dcm: it cannot be read"),
        (("find", "URL", "--ca", "none.pem"), "none.pem: there is no such file"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(refused, pacs, words, says):  # noqa: F811
    pacs.asks_for("ann", "another")
    os.environ.update(SECRET)
    try:
        refused("pacs", *(pacs.url if word == "URL" else word for word in words), says=says, names=None)
    finally:
        del os.environ["DINOAUGSEG_PACS_PASSWORD"]


def test_a_folder_that_is_taken_and_a_series_that_is_not_there_are_refused(refused, pacs, tmp_path):  # noqa: F811
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    refused("pacs", "get", pacs.url, "--study", STUDY, "--out", "taken", says="not empty", names="taken")
    arguments = ("--study", STUDY, "--series", "brain", "--out", "new")
    refused("pacs", "get", pacs.url, *arguments, says="0 series like 'brain'.*--series", names=SERIES)


def test_user_and_token_exclude_each_other(dinoaugseg, pacs):  # noqa: F811
    outcome = dinoaugseg("pacs", "find", pacs.url, "--user", "ann", "--token")
    assert outcome.code == 2
    assert not pacs.asked


def test_without_a_terminal_nobody_is_asked(dinoaugseg, pacs):  # noqa: F811
    outcome = dinoaugseg("pacs", "find", pacs.url, "--user", "ann")
    assert outcome.code == 1
    assert "DINOAUGSEG_PACS_PASSWORD" in outcome.errors
    assert not pacs.asked


def test_at_a_terminal_the_password_is_asked_for_and_not_shown(pacs):  # noqa: F811
    pty = pytest.importorskip("pty", reason="a pseudo-terminal is of POSIX")
    termios = pytest.importorskip("termios")
    pacs.asks_for("ann", PASSWORD)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "napari_dinoaugseg", "pacs", "find", pacs.url, "--user", "ann", "--json"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        until = time.monotonic() + 100
        while b"Password of ann" not in shown and time.monotonic() < until:
            shown += os.read(ours, 1000)
        while termios.tcgetattr(ours)[3] & termios.ECHO and time.monotonic() < until:
            time.sleep(0.01)  # what is typed before the terminal hides it is dropped
        os.write(ours, PASSWORD.encode() + b"\n")
        assert process.stdout is not None
        output = process.stdout.read()
        process.wait()
    os.close(ours)
    assert b"Xaverine" in output
    assert PASSWORD.encode() not in shown + output
