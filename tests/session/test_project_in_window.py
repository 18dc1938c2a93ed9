"""What a window needs of a project: lists in no time, saving beside its own thread, exports of all cases."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_dinoaugseg.errors import TrainingError
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import CaseStatus, Project
from napari_dinoaugseg.session.project_export import existing_files, file_names, masks_of, write_volumes
from napari_dinoaugseg.session.session import Session
from tests.case.builders import numbers, write_nifti

TINY = Settings(encoder="efficientnet-lite0", input_size=64, steps=2, views=0)


@pytest.fixture
def project(tmp_path):
    """Three volumes of 6 axial slices; nothing is labelled."""
    with Project(tmp_path / "project", settings=TINY, config=ComputeConfig(device="cpu")) as made:
        for seed in range(3):
            made.add(write_nifti(tmp_path / f"case{seed}.nii.gz", numbers((9, 8, 6), seed=seed)), plane="axial")
        yield made


def label(project: Project, number: int, *slices: int, classes: tuple[int, ...] = (1,)) -> None:
    """Paint the upper half of slices with each class, and predict another slice."""
    case = project.cases[number]
    session, store, _ = project.session(case)
    known = {entry.number for entry in session.labels.classes}
    for entry in set(classes) - known:
        session.labels.add_class(number=entry)
    for index, entry in zip(slices, classes * len(slices), strict=False):
        painted = np.zeros(session.case.slice_shape(index), np.uint16)
        painted[:4] = entry
        session.paint(index, painted)
    session.labels.set_prediction(5, np.full(session.case.slice_shape(5), classes[0], np.uint16), 0.6)
    project.keep(case, session, store)
    store.close()


def test_the_listed_status_is_that_of_the_labels(project):
    label(project, 0, 1, 2)
    for case in project.cases:
        assert project.status(case, quick=True) == project.status(case)
    assert project.status(project.cases[0], quick=True) == CaseStatus(6, 2, 0, 1, 0.6, (1, 2))
    (project.case_folder(project.cases[0]) / "session.json").write_bytes(b"damaged")
    assert project.status(project.cases[0], quick=True).n_manual == 2  # found in the files of the slices


def test_labels_of_other_cases_are_read_when_the_training_runs(project):
    label(project, 0, 1)
    session, store, _ = project.session(project.cases[1])
    training = project.train(project.cases[1], session)
    label(project, 2, 3)  # saved after the call
    done = list_of(training)
    assert project.trainings[-1].slices == {1: (1,), 3: (3,)}
    assert done.labelled == ()
    store.close()


def list_of(training):
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value


def test_a_project_without_labels_refuses_to_train(project):
    session, store, _ = project.session(project.cases[0])
    with pytest.raises(TrainingError, match="No slice is labelled"):
        list_of(project.train(project.cases[0], session))
    store.close()


def test_what_did_not_change_is_not_written_again(project):
    files = [project.case_folder(case) / "case.json" for case in project.cases]
    before = [file.stat().st_mtime_ns for file in files]
    project.cases[1].is_done = True
    project.close()
    assert [file.stat().st_mtime_ns != then for file, then in zip(files, before, strict=True)] == [False, True, False]


def test_labels_are_saved_while_another_thread_saves_the_project(project):
    label(project, 0, 1)
    session, store, _ = project.session(project.cases[0])
    errors = []

    def save_often() -> None:
        try:
            for step in range(30):
                project.settings = project.settings.with_changes(steps=step + 1)
                project.save()
        except Exception as error:  # shown below
            errors.append(error)

    other = threading.Thread(target=save_often)
    other.start()
    for step in range(15):
        session.labels.rename_class(1, f"name {step}")
        project.cases[0].seconds += 1
        project.keep_snapshot(project.cases[0], session.snapshot({"slice": step}), store)
    other.join()
    store.close()
    assert errors == []
    project.close()
    with Project(project.folder) as again:
        assert [entry.name for entry in again.classes] == ["name 14"]
        assert again.settings.steps == 30
        assert again.cases[0].seconds == 15


def test_prediction_keeps_where_the_person_looked(project):
    label(project, 0, 1)
    list_of(project.train())
    session, store, _ = project.session(project.cases[0])
    project.keep(project.cases[0], session, store, {"slice": 4})
    store.close()
    project.predict(project.cases[0])
    store = project.store(project.cases[0])
    assert store.load()[0].view == {"slice": 4}
    store.close()


def test_a_removed_class_leaves_unless_another_case_is_labelled_with_it(project):
    label(project, 0, 1, 2, classes=(1, 2))
    label(project, 1, 1, classes=(3,))
    session, store, _ = project.session(project.cases[0])
    before = session.labels.classes
    session.labels.remove_class(2, erase=True)
    session.labels.remove_class(3)
    project.keep(project.cases[0], session, store)
    assert [entry.number for entry in project.classes] == [1, 2, 3]  # another program does not know of a removal
    project.keep_snapshot(project.cases[0], session.snapshot(), store, before)
    assert [entry.number for entry in project.classes] == [1, 3]
    store.close()


def test_classes_changed_while_the_next_case_is_predicted_stay_changed_and_a_removed_one_does_not_return(
    project, monkeypatch
):
    label(project, 0, 1)
    label(project, 2, 3, classes=(2,))
    list_of(project.train())
    open_case, next_case, labelled = project.cases
    session, store, _ = project.session(open_case)
    before, predict = session.labels.classes, Session.predict

    def predict_meanwhile(*args, **options):
        session.labels.rename_class(1, "liver")
        session.labels.remove_class(2)
        session.labels.add_class("tumour", number=3)
        project.keep_snapshot(open_case, session.snapshot(), store, before)
        return predict(*args, **options)

    monkeypatch.setattr(Session, "predict", predict_meanwhile)
    project.predict(next_case)
    kept = [(1, "liver"), (2, "class 2"), (3, "tumour")]  # 2 is needed by the labelled case
    assert [(entry.number, entry.name) for entry in project.classes] == kept
    before = session.labels.classes
    session.labels.remove_class(3)
    project.keep_snapshot(open_case, session.snapshot(), store, before)
    store.close()
    monkeypatch.undo()
    project.predict(next_case)  # it knew the class
    for case in (next_case, labelled):
        again, held, _ = project.session(case)
        held.close()
        assert [entry.name for entry in again.labels.classes] == ["liver", "class 2"]


def test_masks_of_a_removed_class_are_removed_where_nobody_labelled_it(project):
    label(project, 0, 1)
    session, store, _ = project.session(project.cases[1])
    session.labels.add_class(number=2)
    session.labels.set_prediction(3, np.full(session.case.slice_shape(3), 2, np.uint16), 0.9)
    project.keep(project.cases[1], session, store)
    store.close()
    session, store, _ = project.session(project.cases[0])
    before = session.labels.classes
    session.labels.remove_class(2)
    project.keep_snapshot(project.cases[0], session.snapshot(), store, before)
    store.close()
    session, store, _ = project.session(project.cases[1])
    store.close()
    assert [entry.number for entry in session.labels.classes] == [1]
    assert not session.labels.predicted(3).any()


def test_a_loaded_model_is_kept_without_a_training(project, tmp_path):
    label(project, 0, 1)
    list_of(project.train())
    project.export_model(tmp_path / "model.safetensors")
    before = project.model_file
    label(project, 1, 2)
    list_of(project.train())
    session, store, _ = project.session(project.cases[0])
    session.load_model(tmp_path / "model.safetensors")
    project.use_model_of(session)
    store.close()
    assert project.model_file == before
    assert len(project.trainings) == 2
    assert [path.name for path in project.folder.glob("model_*")] == [before]


def test_cases_of_one_name_have_masks_of_their_own(project, tmp_path):
    for case, name in zip(project.cases, ("scan", "Scan", "a/b"), strict=True):
        case.name = name
    assert file_names(project.cases) == {1: "scan_001", 2: "Scan_002", 3: "a_b"}
    label(project, 0, 1)
    out = tmp_path / "out"
    out.mkdir()
    results = list(masks_of(project, project.cases[:2], out, replace=True))
    assert [result.path for result in results] == [out / "scan_001.nii.gz", out / "Scan_002.nii.gz"]
    assert existing_files(project.cases[:2], out) == sorted(result.path for result in results)


def test_a_case_without_its_image_does_not_stop_the_masks_of_the_others(project, tmp_path):
    label(project, 0, 1)
    label(project, 1, 1)
    project.cases[0].path.unlink()
    out = tmp_path / "out"
    out.mkdir()
    first, second = masks_of(project, project.cases[:2], out, replace=True)
    assert first.path is None
    assert "is missing" in str(first.problems[0])
    assert second.path == out / "case1.nii.gz"


def test_volumes_need_no_pixels(project, tmp_path):
    label(project, 0, 1)
    for case in project.cases:
        case.path.unlink()
    assert write_volumes(project, tmp_path / "volumes.csv") == []
    lines = (tmp_path / "volumes.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("case,number,done,slices,by hand,accepted,predicted,without labels,class 1 (pixels)")
    assert lines[1].startswith("case0,1,no,6,1,0,1,4,")
