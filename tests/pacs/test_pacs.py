"""Finding, fetching and sending at a PACS on this machine, and every way in which it can fail."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from collections.abc import Generator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dinoaugseg import offline
from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.errors import CaseError, Hint, OutputError, PacsError
from napari_dinoaugseg.learning.events import Cancel, Progress
from napari_dinoaugseg.pacs import credentials, server
from napari_dinoaugseg.pacs.fetch import fetch, fetch_chosen, folder_name
from napari_dinoaugseg.pacs.find import Found, Query, RemoteSeries, choose_series, dicom_dates, find
from napari_dinoaugseg.pacs.send import send
from napari_dinoaugseg.pacs.server import Server, checked_url
from tests.case.builders import listing
from tests.faults.layer import faulty
from tests.pacs.conftest import PASSWORD, SERIES, SLICES, STUDY, fill
from tests.pacs.servers import tiny_pacs, write_certificate

JSON = [("Content-Type", "application/dicom+json")]
HTML = [("Content-Type", "text/html")]


def drain(work: Generator[Progress, None, Any], cancel: tuple[Cancel, int] | None = None) -> Any:
    """The result of work; `cancel` is set after so many events."""
    events = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value
        events += 1
        if cancel is not None and events == cancel[1]:
            cancel[0].set()


def search(url: str, *, user: str = "", secret: str = "", ca: Path | None = None, **query: str) -> Found:
    return drain(find(Server(url, user, secret, ca), Query(**query), Cancel()))


def get(url: str, folder: Path, cancel: tuple[Cancel, int] | None = None, **where: Any) -> Path | None:
    return drain(fetch(Server(url, **where), STUDY, SERIES, folder, cancel[0] if cancel else Cancel()), cancel)


def refusal(url: str, **where: Any) -> PacsError:
    with pytest.raises(PacsError) as refused:
        search(url, **where)
    assert "\n" not in str(refused.value)
    return refused.value


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign_in", ["nobody", "password", "token"])
def test_a_series_goes_from_the_pacs_to_masks_and_back_and_is_found_again(pacs, slices, tmp_path, sign_in):
    where: dict[str, str] = {}
    if sign_in == "password":
        pacs.asks_for("änn", PASSWORD)
        where = {"user": "änn", "secret": PASSWORD}
    elif sign_in == "token":
        pacs.sign_in = f"Bearer {PASSWORD}"
        where = {"secret": PASSWORD}
    (found,) = search(pacs.url, patient="quastenfl", **where).series
    assert (found.study, found.uid, found.modality) == (STUDY, SERIES, "CT")
    folder = get(pacs.url, tmp_path / "fetched", **where)
    assert sorted(listing(folder).values()) == sorted(path.read_bytes() for path in slices)
    case = open_case(folder)
    drawn = np.stack([(case.slice(index) > -200) for index in range(case.n_slices)]).astype(np.uint16)
    files = [tmp_path / "mask.dcm", tmp_path / "mask.rtstruct.dcm"]
    for file in files:
        case.write_mask(file, drawn.__getitem__, [Segment(1, "Liver", "#e69f00")])
    stored = drain(send(Server(pacs.url, **where), files, Cancel()))
    assert [(entry.kind, entry.study) for entry in stored] == [("SEG", STUDY), ("RTSTRUCT", STUDY)]
    again = search(pacs.url, **where).series
    assert sorted(series.modality for series in again) == ["CT", "RTSTRUCT", "SEG"]
    seg = next(series for series in again if series.modality == "SEG")
    back = drain(fetch(Server(pacs.url, **where), STUDY, seg.uid, tmp_path / "seg", Cancel()))
    read = case.read_labels(next(back.iterdir()))
    assert all(np.array_equal(read[index], drawn[index]) for index in range(case.n_slices))


def test_a_compressed_series_is_fetched_as_it_is_stored(tmp_path):
    from pydicom.uid import RLELossless

    from tests.case.builders import write_dicom

    volume = np.arange(3 * 16 * 16).reshape(3, 16, 16).astype(np.int16)
    paths = write_dicom(tmp_path / "series", volume)
    for path in paths:
        image = pydicom.dcmread(path)
        image.compress(RLELossless)
        image.save_as(path)
    with tiny_pacs() as pacs:
        fill(pacs.url, paths)
        folder = get(pacs.url, tmp_path / "fetched")
    assert sorted(listing(folder).values()) == sorted(path.read_bytes() for path in paths)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 1),
        ({"patient": "PID7731"}, 1),
        ({"patient": "Quasten"}, 1),
        ({"patient": "PID7"}, 0),
        ({"date": "2024-03-05"}, 1),
        ({"date": "20240305"}, 1),
        ({"date": "2024-03-01:2024-03-31"}, 1),
        ({"date": "2024-03-06:"}, 0),
        ({"date": ":2024-03-04"}, 0),
        ({"modality": "ct"}, 1),
        ({"modality": "MR"}, 0),
        ({"description": "ABDOMEN"}, 1),
        ({"description": "brain"}, 0),
    ],
)
def test_a_search_goes_by_patient_date_modality_and_description(pacs, query, count):
    assert len(search(pacs.url, **query).series) == count


def test_a_search_shows_what_a_person_needs_to_choose(pacs):
    (found,) = search(pacs.url).series
    assert found.patient == ("Quastenflosser Xaverine", "PID7731")
    assert (found.date, found.study_description) == ("2024-03-05", "Abdomen with contrast")


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "2024-03-31:2024-03-01", ":", "1:2:3", "2024-03"])
def test_what_is_no_date_is_refused_before_anything_is_asked(pacs, text):
    assert "is not a date" in str(refusal(pacs.url, date=text))
    assert not pacs.asked


@given(st.dates(date(1900, 1, 1)), st.dates(date(1900, 1, 1)))
def test_dates_are_asked_for_as_dicom_writes_them(one, other):
    first, last = sorted((one, other))
    assert dicom_dates(f"{first}:{last}") == f"{first:%Y%m%d}-{last:%Y%m%d}"


def test_more_studies_than_are_shown_are_said(pacs, monkeypatch):
    monkeypatch.setattr("napari_dinoaugseg.pacs.find.MOST_STUDIES", 0)
    found = search(pacs.url)
    assert (found.series, len(found.notices)) == ([], 1)


# --- fetching: whole or not at all ------------------------------------------------------------------------------------


def test_every_image_is_on_disk_before_the_next_one_comes(pacs, tmp_path):
    seen = []
    work = fetch(Server(pacs.url), STUDY, SERIES, tmp_path / "fetched", Cancel())
    for event in work:
        seen.append((event.done, event.total, sum(1 for _ in tmp_path.rglob("*.dcm"))))
        assert not (tmp_path / "fetched").exists()
    assert seen == [(n, SLICES, n) for n in range(SLICES + 1)]
    assert len(list((tmp_path / "fetched").iterdir())) == SLICES


@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.999])
def test_a_server_that_dies_in_the_middle_leaves_nothing(pacs, slices, tmp_path, share):
    pacs.ends_after = int(share * sum(path.stat().st_size for path in slices))
    with pytest.raises(PacsError, match="the connection broke off"):
        get(pacs.url, tmp_path / "fetched")
    assert not list(tmp_path.iterdir())


def test_a_server_that_sends_less_than_it_has_leaves_nothing(pacs, tmp_path):
    more = [{"00080018": {"vr": "UI", "Value": ["1.2.99"]}}]

    def lies(_method, path):
        if path.endswith("/instances") and not any("lied" in entry for entry in pacs.asked):
            pacs.asked.append("lied")
            return "200 OK", JSON, json.dumps(more).encode()
        return None

    pacs.answers = lies
    with pytest.raises(PacsError, match=r"sent 6 of the 7 images|sent \d of the"):
        get(pacs.url, tmp_path / "fetched")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_person_who_stops_is_left_with_nothing(pacs, tmp_path, after):
    assert get(pacs.url, tmp_path / "fetched", (Cancel(), after)) is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_whatever_it_refuses(pacs, tmp_path):
    with faulty(tmp_path) as counting:
        get(pacs.url, tmp_path / "fetched")
    shutil.rmtree(tmp_path / "fetched")
    kinds = [operation.split()[0] for operation in counting.operations]
    assert set(kinds) == {"mkdir", "write", "fsync", "rename"}
    first = {kind: kinds.index(kind) for kind in kinds}
    last = {kind: number for number, kind in enumerate(kinds)}
    for refused in {*first.values(), *last.values()}:
        with faulty(tmp_path, refused), pytest.raises(OutputError, match=r"No space left on device.*Choose a folder"):
            get(pacs.url, tmp_path / "fetched")
        assert not list(tmp_path.iterdir()), counting.operations[refused]


@pytest.mark.parametrize("blocked", ["file", "folder with a file", "no parent"])
def test_a_folder_that_is_not_free_is_refused_before_anything_is_asked(pacs, tmp_path, blocked):
    folder = tmp_path / "fetched"
    if blocked == "file":
        folder.write_text("mine")
    elif blocked == "folder with a file":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    else:
        folder = folder / "below"
    before = listing(tmp_path)
    with pytest.raises(OutputError):
        get(pacs.url, folder)
    assert (listing(tmp_path), pacs.asked) == (before, [])


def test_an_empty_folder_is_filled(pacs, tmp_path):
    get(pacs.url, tmp_path)
    assert len(list(tmp_path.iterdir())) == SLICES


@pytest.mark.parametrize(
    ("study", "series", "says"),
    [("1.2.3", "1.2.9", "has no series 1.2.9"), ("1.9", None, "has no study 1.9"), ("1.2/../..", None, "is not a UID")],
)
def test_what_the_pacs_does_not_have_is_named(pacs, tmp_path, study, series, says):
    work = (
        fetch(Server(pacs.url), study, series, tmp_path / "fetched", Cancel())
        if series
        else fetch_chosen(Server(pacs.url), study, None, tmp_path / "fetched", Cancel())
    )
    with pytest.raises(PacsError, match=says):
        drain(work)
    assert not list(tmp_path.iterdir())


def test_a_server_that_sends_no_dicom_leaves_nothing(pacs, tmp_path):
    kind = [("Content-Type", "multipart/related; type=application/dicom; boundary=b")]
    body = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\nno image\r\n--b--"
    pacs.answers = lambda _, path: ("200 OK", kind, body) if path.endswith(SERIES) else None
    with pytest.raises(PacsError, match="something else than DICOM"):
        get(pacs.url, tmp_path / "fetched")
    assert not list(tmp_path.iterdir())


def test_addresses_in_answers_are_not_followed(pacs, tmp_path):
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        elsewhere.listen()
        elsewhere.settimeout(0)
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        entry = {"00080018": {"vr": "UI", "Value": ["1.2.99"]}, "00081190": {"vr": "UR", "Value": [f"{url}/a"]}}
        pacs.answers = lambda _, path: (
            ("200 OK", JSON, json.dumps([entry]).encode()) if path.endswith("instances") else None
        )
        with pytest.raises(PacsError, match="sent"):
            get(pacs.url, tmp_path / "fetched")
        pacs.answers = lambda *_: ("302 Found", [("Location", f"{url}/dicom-web")], b"")
        assert "is not followed" in str(refusal(pacs.url))
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_a_series_is_chosen_by_uid_or_description():
    def one(uid: str, modality: str, text: str) -> RemoteSeries:
        return RemoteSeries("1", uid, ("", ""), "", modality, "", text, None)

    ct, seg = one("1.2", "CT", "Portal venous"), one("1.3", "SEG", "liver")
    assert choose_series([ct, seg], None) is ct
    assert choose_series([ct, seg], "1.3") is seg
    assert choose_series([ct, one("1.4", "CT", "late")], "VENOUS") is ct
    with pytest.raises(PacsError, match="0 series like 'x'") as refused:
        choose_series([ct, seg], "x")
    assert refused.value.hint is Hint.PACS_SERIES
    assert folder_name(ct).startswith("CT_Portal_venous_")
    assert folder_name(one("1.2", "", "../../etc")).startswith("etc_")


# --- sending ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mask(pacs, slices, tmp_path) -> Path:
    """A DICOM SEG of the series."""
    case = open_case(slices[0].parent)
    shape = (case.n_slices, *case.slice_shape(0))
    path = tmp_path / "mask.dcm"
    case.write_mask(path, np.ones(shape, np.uint16).__getitem__, [Segment(1, "Liver", "#e69f00")])
    return path


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        ("200 OK", JSON, b"{}", "did not store mask.dcm, and gives no reason"),
        ("200 OK", JSON, b"", "did not store mask.dcm, and gives no reason"),
        ("200 OK", HTML, b"<html>Sign in</html>", "did not store mask.dcm"),
        (
            "409 Conflict",
            JSON,
            b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}',
            "no space left .code A700",
        ),
        (
            "202 Accepted",
            [("Content-Type", "application/dicom+json; charset=utf-8")],
            b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [290]}}]}}',
            "does not store this kind of object .code 0122",
        ),
        ("403 Forbidden", HTML, b"", "not allowed"),
        ("413 Too Large", HTML, b"", "files this large"),
        ("503 Busy", HTML, b"", "too busy"),
        ("500 Error", HTML, b"", "failed .error 500"),
    ],
)
def test_what_is_not_stored_is_said_whatever_the_status(pacs, mask, status, headers, body, says):
    pacs.answers = lambda method, _: (status, headers, body) if method == "POST" else None
    with pytest.raises(PacsError, match=says):
        drain(send(Server(pacs.url), [mask], Cancel()))


def test_files_go_in_batches_and_those_that_were_stored_are_counted(pacs, mask, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_dinoaugseg.pacs.send._BATCH_FILES", 1)
    other = pydicom.dcmread(mask)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.77"
    other.save_as(tmp_path / "other.dcm")

    def only_the_first(method, _):
        stores = sum(entry.startswith("POST") for entry in pacs.asked)
        return ("200 OK", JSON, b"{}") if method == "POST" and stores > 1 else None

    pacs.answers = only_the_first
    with pytest.raises(PacsError, match=r"did not store other\.dcm.*1 file before is stored"):
        drain(send(Server(pacs.url), [mask, tmp_path / "other.dcm"], Cancel()))
    pacs.answers, pacs.asked[:] = (lambda *_: None), []
    cancel = Cancel()
    stored = drain(send(Server(pacs.url), [mask, tmp_path / "other.dcm"], cancel), (cancel, 1))
    assert stored == []


def test_a_mask_of_a_study_that_the_pacs_does_not_have_is_not_sent(pacs, mask):
    with tiny_pacs() as empty:
        with pytest.raises(PacsError, match=r"has no study 1\.2\.3"):
            drain(send(Server(empty.url), [mask], Cancel()))
        assert not [entry for entry in empty.asked if entry.startswith("POST")]


@pytest.mark.parametrize("kind", ["image", "text", "missing"])
def test_what_is_no_mask_is_not_sent(pacs, slices, tmp_path, kind):
    (tmp_path / "text.dcm").write_text("no DICOM")
    path = {"image": slices[0], "text": tmp_path / "text.dcm", "missing": tmp_path / "none.dcm"}[kind]
    with pytest.raises(CaseError, match=path.name):
        drain(send(Server(pacs.url), [path], Cancel()))
    assert not pacs.asked


# --- failures, each with a sentence of its own ------------------------------------------------------------------------


def test_a_wrong_password_a_missing_one_and_a_wrong_token_are_told_apart(pacs):
    pacs.asks_for("ann", PASSWORD)
    texts = [
        str(refusal(pacs.url, user="ann", secret="wrong")),
        str(refusal(pacs.url)),
        str(refusal(pacs.url, secret="wrong")),
    ]
    assert "the user name and password" in texts[0]
    assert "asks for" in texts[1]
    assert "the token" in texts[2]
    assert refusal(pacs.url).hint is Hint.PACS_SIGN_IN


@pytest.mark.parametrize(
    ("status", "headers", "body", "says"),
    [
        ("403 Forbidden", HTML, b"", "not allowed"),
        ("404 Not Found", HTML, b"", "no DICOMweb service"),
        ("200 OK", HTML, b"<html>Welcome</html>", "a web page"),
        ("200 OK", JSON, b"hello", "text"),
        ("200 OK", JSON, b'["6b9e19d9", "37c9a2b1"]', "a list of identifiers"),
        ("200 OK", JSON, b"[1]", "something else"),
        ("302 Found", [("Location", "/login")], b"", "a redirection"),
        ("302 Found", [("Location", "https://other.example.org/login?x=1")], b"", "https://other.example.org, which"),
        ("500 Error", HTML, b"", "failed"),
        ("503 Busy", HTML, b"", "too busy"),
    ],
)
def test_an_address_that_is_no_dicomweb_service_is_told_from_one_that_fails(pacs, status, headers, body, says):
    pacs.answers = lambda *_: (status, headers, body)
    text = str(refusal(pacs.url))
    assert says in text
    assert text.startswith(pacs.url)


def test_an_address_above_or_beside_the_service_is_named(pacs):
    assert "often ends in /dicom-web" in str(refusal(pacs.url.removesuffix("/dicom-web")))


def test_a_server_that_is_not_there_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/dicom-web"
        assert "cannot be reached" in str(refusal(url))


def test_a_server_that_does_not_answer_in_time_is_named(monkeypatch):
    monkeypatch.setattr(server, "_WAITING", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "did not answer within" in str(refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"))


def test_a_certificate_of_the_hospital_is_trusted_when_it_is_named(tmp_path):
    certificate = write_certificate(tmp_path)
    with tiny_pacs(certificate) as pacs:
        assert refusal(pacs.url).hint is Hint.PACS_CERTIFICATE
        assert search(pacs.url, ca=certificate[0]).series == []
        (tmp_path / "text.pem").write_text("no certificate")
        assert "no certificates" in str(refusal(pacs.url, ca=tmp_path / "text.pem"))
        assert "no such file" in str(refusal(pacs.url, ca=tmp_path / "none.pem"))


@pytest.mark.parametrize(
    ("name", "days", "says"), [("pacs.example.org", 1, "for another name"), ("127.0.0.1", -1, "has expired")]
)
def test_a_certificate_of_another_or_an_old_one_is_refused(tmp_path, name, days, says):
    certificate = write_certificate(tmp_path, name, days)
    with tiny_pacs(certificate) as pacs:
        assert says in str(refusal(pacs.url, ca=certificate[0]))


def test_an_encrypted_address_of_a_server_without_encryption_is_said(pacs):
    assert "begins with http://" in str(refusal(pacs.url.replace("http:", "https:")))


@pytest.mark.parametrize("url", ["", "pacs", "ftp://a/b", "http://", "http://a b/c", "http://a:x/b", "http://[::1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(PacsError, match="not the address of a PACS"):
        checked_url(url)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    for url in (f"https://ann:{PASSWORD}@pacs.example.org/dicom-web", f"https://ann:{PASSWORD}@ pacs"):
        with pytest.raises(PacsError) as refused:
            checked_url(url)
        assert PASSWORD not in str(refused.value)
    with pytest.raises(PacsError, match="leave out what follows"):
        checked_url(f"https://pacs.example.org/dicom-web?token={PASSWORD}")


def test_without_the_network_nothing_is_asked(pacs, monkeypatch):
    monkeypatch.setenv(offline.VARIABLE, "1")
    assert refusal(pacs.url).hint is Hint.PACS_WITHOUT_NETWORK
    assert not pacs.asked


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(server, "is_installed", lambda: False)
    assert server.INSTALL in str(refusal("https://pacs.example.org/dicom-web"))


# --- what stays secret ------------------------------------------------------------------------------------------------


def test_neither_passwords_nor_patients_reach_a_log(pacs, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    pacs.asks_for("ann", PASSWORD)
    where = {"user": "ann", "secret": PASSWORD}
    search(pacs.url, patient="Quastenflosser", **where)
    get(pacs.url, tmp_path / "fetched", **where)
    pacs.asks_for("ann", "another")
    text = str(refusal(pacs.url, patient="Quastenflosser", **where)) + repr(Server(pacs.url, **where))
    printed = capsys.readouterr()
    for word in (PASSWORD, "Quastenflosser", "PID7731"):
        assert word not in caplog.text + text + printed.out + printed.err


def test_passwords_of_other_programs_are_not_sent(pacs, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ann password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    pacs.asks_for("ann", PASSWORD)
    assert "asks for" in str(refusal(pacs.url))


def test_the_keyring_keeps_a_password_for_each_address_and_user(ring):
    credentials.remember("https://a.example.org/dicom-web/", "ann", PASSWORD)
    credentials.remember("https://a.example.org/dicom-web", "", "token")
    assert credentials.remembered("https://a.example.org/dicom-web", "ann") == PASSWORD
    assert credentials.remembered("https://a.example.org/dicom-web", "") == "token"
    assert credentials.remembered("https://b.example.org/dicom-web", "ann") == ""
    credentials.forget("https://a.example.org/dicom-web", "ann")
    assert credentials.remembered("https://a.example.org/dicom-web", "ann") == ""


def test_a_computer_without_a_keyring_keeps_nothing_and_says_so(ring, monkeypatch):
    monkeypatch.setattr(type(ring), "priority", 0.5)  # one that writes a file that can be read
    with pytest.raises(PacsError) as refused:
        credentials.remember("https://a.example.org/dicom-web", "ann", PASSWORD)
    assert refused.value.hint is Hint.PACS_WITHOUT_KEYRING
    assert credentials.remembered("https://a.example.org/dicom-web", "ann") == ""
    credentials.forget("https://a.example.org/dicom-web", "ann")
    assert not ring.kept
