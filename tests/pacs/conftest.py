"""A PACS with one examination, and a keyring in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import keyring
import numpy as np
import pydicom
import pytest
from keyring.backend import KeyringBackend

from napari_dinoaugseg.pacs.server import Server, connected
from tests.case.builders import write_dicom
from tests.pacs.servers import Pacs, tiny_pacs

STUDY, SERIES = "1.2.3", "1.2.826.0.1.3680043.8.498.1"
PASSWORD = "Zwetschgenknoedel"
SLICES = 6


class Keyring(KeyringBackend):
    """A keyring in memory."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self.kept.pop((service, username), None)


@pytest.fixture
def ring() -> Iterator[Keyring]:
    """The keyring of this computer, empty."""
    before, made = keyring.get_keyring(), Keyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def describe(_: int, dataset: pydicom.Dataset) -> None:
    """An examination that can be searched for."""
    dataset.PatientName, dataset.PatientID = "Quastenflosser^Xaverine", "PID7731"
    dataset.StudyDate, dataset.StudyDescription = "20240305", "Abdomen with contrast"
    dataset.SeriesDescription = "Portal venous"


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of one series."""
    volume = np.random.default_rng(0).integers(0, 200, (SLICES, 40, 48)).astype(np.int16)
    volume[:, 10:25, 12:30] += 900
    return write_dicom(tmp_path_factory.mktemp("sent") / "series", volume, change=describe)


def fill(url: str, slices: list[Path], *sign_in: str) -> None:
    """Store the series in a PACS."""
    with connected(Server(url, *sign_in)) as client:
        stored = client.store_instances([pydicom.dcmread(path) for path in slices])
    assert len(stored.ReferencedSOPSequence) == len(slices)


@pytest.fixture
def pacs(slices: list[Path]) -> Iterator[Pacs]:
    """A PACS with one series."""
    with tiny_pacs() as made:
        fill(made.url, slices)
        made.asked.clear()
        yield made


@pytest.fixture
def locked_pacs(slices: list[Path], tmp_path: Path) -> Iterator[str]:
    """The address of a PACS with one series that asks ann for the password: Orthanc where the tests are alone with it.

    `test_orthanc.py` runs them so.
    """
    if os.environ.get("DINOAUGSEG_TEST_ORTHANC"):
        from tests.pacs import orthanc

        with orthanc.orthanc(tmp_path / "orthanc", password=True):
            url = f"{orthanc.BASE}/dicom-web"
            fill(url, slices, "ann", PASSWORD)
            yield url
        return
    with tiny_pacs() as made:
        fill(made.url, slices)
        made.asks_for("ann", PASSWORD)
        yield made.url
