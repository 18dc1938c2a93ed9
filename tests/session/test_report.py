"""The report says how a mask came about, and nothing that could name a patient."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from napari_dinoaugseg import __version__
from napari_dinoaugseg.case import case_from_array, open_case
from napari_dinoaugseg.errors import OutputError
from napari_dinoaugseg.session.export import MANUAL_ONLY, make_report, write_report
from napari_dinoaugseg.session.pixel_counts import volumes_ml
from napari_dinoaugseg.session.session import Session
from tests.blobs import AFFINE, LABELLED, SHAPE, truth_voxels, write_case


@pytest.fixture
def trained(copy_of_trained):
    session = copy_of_trained(*LABELLED)
    session.labels.accept(7)
    return session


def test_everything_that_matters_is_told(trained, tmp_path):
    write_report(tmp_path / "report.json", trained)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["case"] == {
        "fingerprint": trained.case.fingerprint,
        "kind": "volume",
        "plane": "axial",
        "slices": SHAPE[2],
        "size": [40, 48],
        "spacing_mm": pytest.approx([4.0, 1.1, 1.2]),
        "modality": None,
        "colour": False,
    }
    assert report["slices"]["manual"] == list(LABELLED)
    assert report["slices"]["accepted"] == [7]
    assert report["slices"]["predicted"] == [i for i in range(SHAPE[2]) if i not in (*LABELLED, 7)]
    assert report["slices"]["in_mask"] == ["manual", "accepted", "predicted"]
    assert report["slices"]["counted_from"] == 0
    assert [entry["number"] for entry in report["classes"]] == [1, 3]
    assert report["encoder"]["name"] == "efficientnet-lite0"
    assert report["encoder"]["fingerprint"]
    assert report["device"] == "cpu"
    assert report["settings"]["steps"] == trained.settings.steps
    assert report["rounds"][0]["labelled"] == list(LABELLED)
    assert report["versions"]["napari-dinoaugseg"] == __version__
    assert set(report["confidence"]) >= {"0", "7"}
    assert datetime.fromisoformat(report["created"]).tzinfo is not None
    assert "Research use only" in report["purpose"]


def test_volumes_are_those_of_the_mask(new_session, blob_files):
    session = new_session()
    session.load_labels(blob_files[1], LABELLED)
    voxel_ml = abs(np.linalg.det(AFFINE)) / 1000
    truth = truth_voxels()[:, :, LABELLED]
    report = make_report(session, MANUAL_ONLY)
    for entry in report["classes"]:
        count = int((truth == entry["number"]).sum())
        assert entry["pixels"] == count
        assert entry["volume_ml"] == pytest.approx(count * voxel_ml, abs=1e-3)
    assert volumes_ml(session.case, session.pixel_counts.total(session.labels)) == pytest.approx(
        {n: (truth == n).sum() * voxel_ml for n in (1, 3)}
    )
    assert report["encoder"] is None


def test_no_name_of_a_file_or_folder_is_told(tmp_path, quick):
    folder = tmp_path / "Meyer^Anna"
    folder.mkdir()
    image, _ = write_case(folder)
    named = image.rename(folder / "MEYER_ANNA_1960.nii.gz")
    pictures = folder / "Anna"
    pictures.mkdir()
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(pictures / "Anna Meyer 1.png")
    for case in (open_case(named), open_case(pictures), case_from_array(np.zeros((3, 4)), name="Anna Meyer")):
        text = json.dumps(make_report(Session(case, quick))).casefold()
        assert "meyer" not in text
        assert "anna" not in text
        assert str(tmp_path).casefold() not in text


def test_pictures_have_no_millilitres(tmp_path, quick):
    for name, size in (("a", (4, 5)), ("b", (6, 5))):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / f"{name}.png")
    session = Session(open_case(tmp_path), quick)
    session.labels.add_class("polyp")
    session.paint(0, np.ones((4, 5), np.uint16))
    report = make_report(session)
    assert report["classes"][0]["pixels"] == 20
    assert report["classes"][0]["volume_ml"] is None
    assert report["case"]["size"] is None
    assert report["case"]["spacing_mm"] is None
    assert volumes_ml(session.case, session.pixel_counts.total(session.labels)) is None


def test_a_folder_that_is_not_there_is_said(new_session, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_report(tmp_path / "nowhere" / "report.json", new_session())
