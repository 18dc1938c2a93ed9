"""What is written besides the mask at the person's own place holds no name, number or folder of a patient."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.cli.app import app
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.export import write_report
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore, new_session_folder
from tests.case.builders import write_dicom
from tests.cli.conftest import QUICK

# Words that occur nowhere else.
SECRETS = {
    "PatientName": "Quastenflosser^Xaverine",
    "PatientID": "PIDZ7731940",
    "AccessionNumber": "ACCQ55120",
    "InstitutionName": "Zwiebelturmklinik",
    "ReferringPhysicianName": "Doktorwurmfarn^Y",
    "StudyDescription": "Jochbeinverdacht",
    "PatientBirthDate": "19210317",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77123",
}
FOLDER, FILE = "QUASTENFLOSSER_1921", "xaverine_{:03d}.dcm"


def words() -> list[bytes]:
    parts = [part for value in SECRETS.values() for part in value.split("^") if len(part) > 2]
    return [part.casefold().encode() for part in (*parts, FOLDER, "xaverine_")]


def contents(folder: Path):
    """Every file with its name and bytes, unpacked where it is packed, in lower case."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            unpacked = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b""
            yield path.name, (str(path.relative_to(folder)).encode() + content + unpacked).lower()


@pytest.fixture
def series(tmp_path) -> tuple[Path, Path]:
    """A DICOM series and labels of two of its slices, in folders with a patient's name."""
    volume = np.random.default_rng(0).integers(0, 200, (6, 40, 48)).astype(np.int16)
    volume[:, 10:25, 12:30] += 900

    def name(_: int, dataset) -> None:
        for keyword, value in SECRETS.items():
            setattr(dataset, keyword, value)

    folder = tmp_path / FOLDER
    write_dicom(folder / "ct", volume, change=name, names=FILE.format)
    case = open_case(folder / "ct")
    labels = np.zeros(case.slice_shape(0), np.uint16)
    labels[10:25, 12:30] = 1
    labels_file = folder / "labels.nii.gz"
    case.write_mask(labels_file, lambda index: labels if index in (1, 4) else np.zeros_like(labels))
    return folder / "ct", labels_file


def test_the_words_are_found_where_they_are(series):
    found = {name: content for name, content in contents(series[0].parents[1]) if name.endswith(".dcm")}
    assert len(found) == 6
    for content in found.values():
        assert [word for word in words() if word not in content] == []


def test_what_is_written_names_no_patient(series, tmp_path, monkeypatch, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    written = tmp_path / "written"
    written.mkdir()
    monkeypatch.setenv("DINOAUGSEG_CACHE", str(written / "cache"))
    folder, labels = series
    options = [str(option) for option in QUICK]
    outputs = ["--model-out", str(written / "model.safetensors"), "--confidence-out", str(written / "sure.nii.gz")]
    arguments = ["segment", str(folder), "--labels", str(labels), "--out", str(written / "mask.nii.gz"), *outputs]
    app([*arguments, *options, "--json"], standalone_mode=False)
    settings = Settings.of_preset("fast", encoder="efficientnet-lite0", input_size=64, steps=5)
    session = Session(open_case(folder), settings, ComputeConfig("cpu"))
    session.load_labels(labels)
    list(session.train())
    list(session.predict(2))
    write_report(written / "report.json", session)
    session.save_model(written / "panel.safetensors")
    store = SessionStore(new_session_folder(session.case.fingerprint, written / "sessions"), session.case)
    store.save(session.snapshot({"slice": 1}))
    store.close()
    kinds = {Path(name).suffix for name, _ in contents(written)} - {""}
    assert kinds == {".gz", ".safetensors", ".json", ".features", ".png"}
    printed = capsys.readouterr().out
    assert json.loads(printed)["mask"] == str(written / "mask.nii.gz")
    logged = "\n".join(record.getMessage() for record in caplog.records).lower().encode()
    for name, content in [*contents(written), ("standard output", printed.lower().encode()), ("log", logged)]:
        assert [word for word in words() if word in content] == [], name
        if name not in ("standard output", "log"):
            assert str(tmp_path).encode() not in content, name
    assert str(tmp_path).encode() not in logged
