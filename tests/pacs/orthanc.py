"""A real Orthanc in a network of its own, and what must hold with it: `unshare -n python -m tests.pacs.orthanc FOLDER`.

Orthanc listens on all addresses, so the process must be alone in its network namespace. It ends with an error where
something does not hold.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.case.case import Segment
from napari_dinoaugseg.errors import PacsError
from napari_dinoaugseg.learning.events import Cancel
from napari_dinoaugseg.pacs.fetch import fetch
from napari_dinoaugseg.pacs.send import send
from napari_dinoaugseg.pacs.server import Server, connected
from tests.case.builders import listing, write_dicom
from tests.pacs.conftest import PASSWORD, SERIES, STUDY, describe
from tests.pacs.test_pacs import drain, search

PROGRAM, PLUGINS = "/usr/sbin/Orthanc", "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
PORT = 8042
BASE = f"http://127.0.0.1:{PORT}"
_PATIENCE = 30  # seconds


def is_alone() -> bool:
    """Whether this network has the loopback device and nothing else."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def raise_loopback() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


@contextmanager
def orthanc(folder: Path, *, password: bool) -> Iterator[subprocess.Popen[bytes]]:
    """An empty Orthanc, with or without a password for ann; refused unless it is alone in its network."""
    if not is_alone():
        raise SystemExit("this must run in a network namespace of its own: unshare -n")
    raise_loopback()
    folder.mkdir()
    configuration = {
        "Name": "tests",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": PORT,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": password,
        "RegisteredUsers": {"ann": PASSWORD},
        "Plugins": [PLUGINS],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            _wait(process, folder / "log")
            yield process
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"Orthanc does not answer: {log.read_text(errors='replace')}")


def check_loop(folder: Path, where: dict[str, str]) -> None:
    """From the PACS to masks and back, compressed or not, byte for byte."""
    server = Server(f"{BASE}/dicom-web", **where)
    volume = np.random.default_rng(0).integers(0, 200, (6, 40, 48)).astype(np.int16)
    paths = write_dicom(folder / "series", volume, change=describe)
    packed = write_dicom(folder / "packed", volume, change=describe, series_uid="1.2.9")
    for path in packed:
        image = pydicom.dcmread(path)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID + "1"
        image.compress(RLELossless)
        image.save_as(path)
    with connected(server) as client:
        client.store_instances([pydicom.dcmread(path) for path in [*paths, *packed]])
    for words in ("quasten", "Xaverine", "quastenflosser xav", "PID7731", "QUAST*"):
        assert len(search(server.url, patient=words, date="2024-03-01:", modality="CT", **where).series) == 2, words
    assert search(server.url, patient="Quasti", **where).series == []
    for uid, sent in ((SERIES, paths), ("1.2.9", packed)):
        got = drain(fetch(server, STUDY, uid, folder / f"got_{uid}", Cancel()))
        assert sorted(listing(got).values()) == sorted(path.read_bytes() for path in sent), uid
    case = open_case(folder / f"got_{SERIES}")
    drawn = np.stack([case.slice(index) > -900 for index in range(case.n_slices)]).astype(np.uint16)
    files = [folder / "mask.dcm", folder / "mask.rtstruct.dcm"]
    for file in files:
        case.write_mask(file, drawn.__getitem__, [Segment(1, "Liver", "#e69f00")])
    assert [entry.kind for entry in drain(send(server, files, Cancel()))] == ["SEG", "RTSTRUCT"]
    found = search(server.url, patient="PID7731", **where).series
    assert sorted(series.modality for series in found) == ["CT", "CT", "RTSTRUCT", "SEG"]
    seg = next(series for series in found if series.modality == "SEG")
    back = drain(fetch(server, STUDY, seg.uid, folder / "seg", Cancel()))
    read = case.read_labels(next(back.iterdir()))
    assert all(np.array_equal(read[index], drawn[index]) for index in range(case.n_slices))


def check_refusals(where: dict[str, str]) -> None:
    """Wrong passwords and addresses."""
    for url, given, says in (
        (f"{BASE}/dicom-web", {"user": "ann", "secret": "wrong"}, "does not accept the user name and password"),
        (f"{BASE}/dicom-web", {}, "asks for a user name and password"),
        (BASE, where, "no DICOMweb service"),
        (f"{BASE}/app/explorer.html", where, "no DICOMweb service"),
        (f"https://127.0.0.1:{PORT}/dicom-web", where, "no encrypted connection"),
        (f"http://127.0.0.1:{PORT + 1}/dicom-web", where, "cannot be reached"),
    ):
        with pytest.raises(PacsError, match=says):
            search(url, **given)


def check_death(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """A series of which the server dies: nothing is left of it."""
    server = Server(f"{BASE}/dicom-web")
    # More than the buffers of a connection hold.
    volume = np.random.default_rng(0).integers(0, 2**15, (40, 512, 512)).astype(np.int16)
    paths = write_dicom(folder / "large", volume, change=describe)
    with connected(server) as client:
        for start in range(0, len(paths), 10):
            client.store_instances([pydicom.dcmread(path) for path in paths[start : start + 10]])
    work = fetch(server, STUDY, SERIES, folder / "never", Cancel())
    while next(work).done < 2:
        pass
    process.kill()
    process.wait()
    with pytest.raises(PacsError, match="broke off"):
        drain(work)
    assert not [path for path in folder.iterdir() if "never" in path.name]


def main(folder: Path) -> None:
    """Check everything; raises AssertionError."""
    (folder / "with").mkdir()
    where = {"user": "ann", "secret": PASSWORD}
    with orthanc(folder / "with" / "store", password=True):
        check_loop(folder / "with", where)
        check_refusals(where)
    (folder / "without").mkdir()
    with orthanc(folder / "without" / "store", password=False) as process:
        check_loop(folder / "without", {})
        check_death(folder / "without", process)
    print("All of it holds.")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
