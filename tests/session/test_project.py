"""A project: many cases, one model, as command and panel use it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import CaseError, OutputError, ProjectError, TrainingError
from napari_dinoaugseg.learning.metrics import dice
from napari_dinoaugseg.learning.settings import Settings
from napari_dinoaugseg.learning.train import fit
from napari_dinoaugseg.session.compute import ComputeConfig
from napari_dinoaugseg.session.project import MissingCaseError, Project
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.store import SessionStore
from tests.blobs import LABELLED, truth_voxels, write_case
from tests.session.test_session import drain

SETTINGS = Settings.of_preset(
    "fast", encoder="efficientnet-lite0", input_size=64, context=0, steps=60, views=2, width=16
)
SHORT = SETTINGS.with_changes(steps=20, shows=0)  # for what does not ask how well it learns


def truth(index: int) -> np.ndarray:
    """The true labels of a slice, as the case shows it."""
    return TRUTH[index]


@pytest.fixture(scope="session", autouse=True)
def _truth(tmp_path_factory):
    global TRUTH
    case = open_case(write_case(tmp_path_factory.mktemp("truth"))[1], plane="axial")
    TRUTH = [case.slice(i).astype(np.uint16) for i in range(case.n_slices)]


def write_cases(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [write_case(folder, seed)[0] for seed in range(count)]
    (folder / "truth.nii.gz").unlink()
    return paths


def open_project(folder: Path, **options) -> Project:
    return Project(folder, settings=SETTINGS, config=ComputeConfig("cpu"), **options)


def label(project: Project, number: int, slices: dict[int, np.ndarray]) -> None:
    """Label slices of a case as the panel does, and close it."""
    case = project.find(str(number))
    session, store, _ = project.session(case)
    session.take_labels(slices, case.path)
    project.keep(case, session, store)
    store.close()


@pytest.fixture
def project(tmp_path):
    """Three cases without labels."""
    write_cases(tmp_path / "images", 3)
    with open_project(tmp_path / "project") as made:
        for path in sorted((tmp_path / "images").iterdir()):
            made.add(path, plane="axial")
        yield made


def test_one_model_learns_from_the_labels_of_all_cases_and_predicts_another(project):
    bright, dim = ({i: np.where(truth(i) == n, n, 0).astype(np.uint16) for i in LABELLED} for n in (1, 3))
    for labels, hidden in ((bright, 3), (dim, 1)):
        for i in labels:  # what the other case teaches is unknown here, and not background
            labels[i][truth(i) == hidden] = 65535
    for number, labels in ((1, bright), (2, dim)):
        case = project.find(str(number))
        session, store, _ = project.session(case)
        for class_number in (1, 3):
            if class_number not in [entry.number for entry in session.labels.classes]:
                session.labels.add_class(number=class_number)
        for i, painted in labels.items():
            session.paint(i, painted)
        project.keep(case, session, store)
        store.close()
    drain(project.train())
    assert project.trainings[-1].slices == {1: LABELLED, 2: LABELLED}
    session, _ = project.predict(project.find("3"))
    found, true = session.labels.predicted(8), truth(8)
    assert dice(found == 1, true == 1) > 0.8
    assert dice(found == 3, true == 3) > 0.8
    again, store, _ = project.session(project.find("3"))
    store.close()
    assert np.array_equal(again.labels.predicted(8), found)


def test_a_further_slice_of_a_case_is_one_whose_mask_is_doubtful(project):
    for case in project.cases[1:]:
        case.is_done = True
    label(project, 1, {4: truth(4)})
    (before,) = project.suggest()
    doubtful = 6
    session, store, _ = project.session(project.cases[0])
    for i in set(range(len(TRUTH))) - {4}:
        session.labels.set_prediction(i, truth(8), 0.2 if i == doubtful else 1.0)
    project.keep(project.cases[0], session, store)
    store.close()
    (found,) = project.suggest()
    assert before.index != found.index == doubtful  # by its position alone, it would be another one
    assert "most uncertain" in found.reason


def test_the_labels_of_the_open_case_count_before_they_are_saved(project):
    for case in project.cases[1:]:
        case.is_done = True
    session, store, _ = project.session(project.cases[0])
    session.take_labels({4: truth(4)}, project.cases[0].path)
    for i in set(range(len(TRUTH))) - {4}:
        session.labels.set_prediction(i, truth(8), 0.2 if i == 6 else 1.0)
    (found,) = project.suggest(held=(project.cases[0], session))
    (without,) = project.suggest()
    store.close()
    assert found.index == 6
    assert "a case with few labels" in found.reason
    assert "a case without labels" in without.reason


def test_once_there_is_a_model_the_open_case_is_suggested_until_it_is_done(project, monkeypatch):
    label(project, 1, {4: truth(4)})
    session, store, _ = project.session(project.cases[0])
    store.close()
    held = project.cases[0], session
    assert project.suggest(held=held)[0].case != 1  # first a slice in each case
    monkeypatch.setattr(Project, "is_trained", True)
    assert project.suggest(held=held)[0].case == 1
    assert project.suggest()[0].case != 1
    project.cases[0].is_done = True
    assert project.suggest(held=held)[0].case != 1


def test_a_further_training_dwells_on_the_labels_of_all_cases_that_its_model_has_not_seen(project, monkeypatch):
    new: list[list[int]] = []

    def recorded(*values, **options):
        new.append(list(options["newest"]))
        return fit(*values, **options)

    monkeypatch.setattr("napari_dinoaugseg.session.engine.fit", recorded)
    project.settings = SETTINGS.with_changes(steps=4)
    for number, slices in ((1, (4,)), (2, (4, 8))):
        label(project, number, {i: truth(i) for i in slices})
    drain(project.train())
    label(project, 2, {2: truth(2), 8: np.zeros_like(truth(8))})
    label(project, 3, {4: truth(4)})
    folder = project.folder
    project.close()
    with Project(folder, settings=project.settings, config=project.config) as again:
        drain(again.train())
    first, second = len(TRUTH), 2 * len(TRUTH)  # numbers of the first slices of the second and the third case
    assert new == [[4, first + 4, first + 8], [first + 2, first + 8, second + 4]]


def test_a_second_training_reads_no_image(project, tmp_path):
    for number in (1, 2):
        label(project, number, {i: truth(i) for i in LABELLED})
    drain(project.train())
    project.close()
    shutil.rmtree(tmp_path / "images")
    with open_project(tmp_path / "project") as again:
        assert again.is_current()
        done = drain(again.train())
    assert done.seconds["encode"] == 0


def test_a_project_of_one_case_trains_as_a_session_of_it(tmp_path):
    (image,) = write_cases(tmp_path / "images", 1)
    session = Session(open_case(image, plane="axial"), SHORT, ComputeConfig("cpu"))
    session.take_labels({i: truth(i) for i in LABELLED}, image)
    drain(session.train())
    alone = {found.index: found.classes for found in session.predict()}
    with Project(tmp_path / "project", settings=SHORT, config=ComputeConfig("cpu")) as project:
        project.add(image, plane="axial")
        label(project, 1, {i: truth(i) for i in LABELLED})
        drain(project.train())
        opened, _ = project.predict(project.cases[0])
    assert any(classes.any() for classes in alone.values())
    assert all(np.array_equal(opened.labels.predicted(i), classes) for i, classes in alone.items())


def test_the_model_is_kept_once_and_outlives_the_program(project, tmp_path):
    project.settings = SHORT
    label(project, 1, {i: truth(i) for i in LABELLED})
    drain(project.train())
    drain(project.train())
    project.close()
    assert len(list((tmp_path / "project").rglob("*.safetensors"))) == 1
    with Project(tmp_path / "project", config=ComputeConfig("cpu")) as again:
        assert again.settings == SHORT
        assert [entry.number for entry in again.classes] == [1, 3]
        assert len(again.trainings) == 2
        assert not again.is_current() or again.predict(again.find("2"))[0].labels.confidence


def test_labels_that_are_open_in_the_panel_count_before_they_are_saved(project):
    project.settings = SHORT
    label(project, 1, {i: truth(i) for i in LABELLED})
    case = project.find("2")
    session, store, _ = project.session(case)
    session.take_labels({8: truth(8)}, case.path)
    drain(project.train(case, session))
    store.close()
    assert project.trainings[-1].slices == {1: LABELLED, 2: (8,)}
    assert session.is_trained


def test_a_case_opens_to_be_painted_while_the_interface_reads_its_labels_for_the_suggestion(project, monkeypatch):
    label(project, 1, {2: truth(2)})
    case, opened, load = project.cases[0], [], SessionStore.load

    def load_slowly(store: SessionStore) -> object:
        if not opened:
            opened.append(None)
            opened[0] = project.store(case)
        return load(store)

    monkeypatch.setattr(SessionStore, "load", load_slowly)
    assert project.status(case).labelled == (2,)
    assert opened[0].is_writable
    opened[0].close()


def test_nothing_is_trained_without_labels(project):
    with pytest.raises(TrainingError, match="No slice of any case is labelled"):
        project.train()


def test_the_same_pixels_are_one_case(project, tmp_path):
    copy = shutil.copy(project.cases[0].path, tmp_path / "other name.nii.gz")
    case, is_new = project.add(Path(copy), plane="axial")
    assert (case.number, is_new) == (1, False)
    _, is_new = project.add(Path(copy), plane="coronal")
    assert is_new


def test_pictures_are_refused_among_volumes_and_nothing_changes(project, tmp_path):
    from PIL import Image

    Image.new("L", (20, 20)).save(tmp_path / "picture.png")
    with pytest.raises(CaseError, match="two projects"):
        project.add(tmp_path / "picture.png")
    assert len(project.cases) == 3
    assert len(list((project.folder / "cases").iterdir())) == 3


def test_a_removed_case_keeps_its_labels_and_its_number(project, tmp_path):
    label(project, 3, {8: truth(8)})
    kept = project.remove(project.find("3"))
    assert list((kept / "slices").glob("00008_manual_*.png"))
    (image,) = write_cases(tmp_path / "more", 1)
    voxels = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(voxels.dataobj) + np.int16(7), voxels.affine), image)
    assert project.add(image, plane="axial")[0].number == 4


def test_a_missing_image_is_asked_for_and_its_labels_stay(project, tmp_path):
    label(project, 1, {8: truth(8)})
    case = project.find("1")
    project.opened(project.find("2"))  # lets the pixels of the first go
    moved = shutil.move(case.path, tmp_path / "elsewhere.nii.gz")
    with pytest.raises(MissingCaseError, match="Its labels are safe"):
        project.session(case)
    assert project.status(case).n_manual == 1
    with pytest.raises(CaseError, match="not the pixels that were labelled"):
        project.relocate(case, project.cases[1].path)
    project.relocate(case, Path(moved))
    session, store, _ = project.session(case)
    store.close()
    assert session.labels.labelled == [8]


def test_a_moved_image_is_found_by_its_name_below_the_project(project):
    case = project.find("1")
    project.opened(project.find("2"))
    (project.folder / "images").mkdir()
    shutil.move(case.path, project.folder / "images")
    assert project.opened(case).name == case.name
    assert case.path.parent.name == "images"


def test_project_and_images_move_together(project, tmp_path):
    label(project, 1, {8: truth(8)})
    project.close()
    (tmp_path / "other").mkdir()
    for name in ("images", "project"):
        shutil.move(tmp_path / name, tmp_path / "other" / name)
    with open_project(tmp_path / "other" / "project") as moved:
        assert moved.opened(moved.cases[0]).n_slices == 16
        assert moved.cases[0].path.parent == tmp_path / "other" / "images"


def test_a_replaced_image_is_refused(project):
    case = project.find("1")
    project.opened(project.find("2"))
    shutil.copy(project.find("2").path, case.path)
    with pytest.raises(CaseError, match="not the pixels that were labelled"):
        project.opened(case)


def test_a_second_program_can_look_but_not_change(project, tmp_path):
    label(project, 1, {8: truth(8)})
    with open_project(tmp_path / "project") as second:
        assert "open in another window" in second.reason
        assert second.status(second.cases[0]).n_manual == 1
        looked = second.store(second.cases[0])
        assert not looked.is_writable
        first = project.store(project.cases[0])  # at the same time
        assert first.is_writable
        for store in (first, looked):
            store.close()
        with pytest.raises(ProjectError, match="open in another window"):
            second.add(project.cases[0].path)
        with pytest.raises(ProjectError, match="open in another window"):
            second.remove(second.cases[0])
        with pytest.raises(ProjectError, match="open in another window"):
            second.train()


def test_an_interrupted_adding_leaves_no_case(project, tmp_path):
    (project.folder / "cases" / "004").mkdir()  # killed before case.json was written
    project.close()
    with open_project(tmp_path / "project") as again:
        assert len(again.cases) == 3
        (image,) = write_cases(tmp_path / "more", 1)
        assert again.add(image, plane="sagittal")[0].number == 5


def test_labels_are_saved_while_another_thread_writes_the_facts_of_the_case(project):
    unfinished = project.case_folder(project.cases[0]) / ".case.json.0a1b.part"  # as `disk.write` names it
    unfinished.write_bytes(b"half")
    label(project, 1, {8: truth(8)})
    assert unfinished.exists()
    project.close()
    with open_project(project.folder) as again:  # the thread is gone by now
        assert not unfinished.exists()
        assert again.status(again.cases[0]).labelled == (8,)


def test_a_project_that_cannot_be_saved_leaves_no_folder(tmp_path, monkeypatch):
    def full(path, content, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_dinoaugseg.session.project.disk.write", full)
    with pytest.raises(OutputError, match="No space left"):
        Project(tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_project_from_disk_is_never_discarded(project, tmp_path):
    project.close()
    before = {path: path.read_bytes() for path in (tmp_path / "project").rglob("*.json")}
    with open_project(tmp_path / "project") as again:
        again.discard()
    assert {path: path.read_bytes() for path in (tmp_path / "project").rglob("*.json")} == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"classes": 3}'])
def test_a_damaged_project_is_reported_and_not_changed(project, tmp_path, content):
    project.close()
    file = tmp_path / "project" / "project.json"
    file.write_text(content)
    with pytest.raises(ProjectError, match=r"project\.json"):
        open_project(tmp_path / "project")
    assert file.read_text() == content


def test_a_setting_of_a_newer_version_is_named_and_nothing_is_called_damaged(project, tmp_path):
    project.close()
    file = tmp_path / "project" / "project.json"
    values = json.loads(file.read_text())
    values["settings"]["sharpness"] = 3
    file.write_text(json.dumps(values))
    with pytest.raises(ProjectError, match="does not know the setting 'sharpness'") as caught:
        open_project(tmp_path / "project")
    assert "damaged" not in str(caught.value)
    assert json.loads(file.read_text()) == values


def test_a_project_of_a_newer_version_is_refused(project, tmp_path):
    project.close()
    file = tmp_path / "project" / "project.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    with pytest.raises(ProjectError, match="newer version"):
        open_project(tmp_path / "project")


def test_a_folder_with_other_files_is_no_project(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ProjectError, match="holds other files"):
        open_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_labels_from_a_file_are_loaded_once_so_that_corrections_stay(project, tmp_path):
    voxels = np.zeros_like(truth_voxels())
    voxels[:, :, 8] = truth_voxels()[:, :, 8]
    file = tmp_path / "labels.nii.gz"
    image = nib.load(project.cases[0].path)
    nib.save(nib.Nifti1Image(voxels, image.affine), file)
    case = project.cases[0]
    assert project.load_labels(case, file)
    corrected = truth(8).copy()
    corrected[0, 0] = 1
    label(project, 1, {8: corrected})
    assert not project.load_labels(case, file)
    session, store, _ = project.session(case)
    store.close()
    assert session.labels.manual(8)[0, 0] == 1
