"""Masks of nnU-Net come back as predictions: with the classes of the export, on the right case, to be reviewed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.errors import LabelError
from napari_dinoaugseg.session.foreign_masks import (
    find_masks,
    read_masks_of,
    read_project_masks,
    take_project_masks,
)
from napari_dinoaugseg.session.labels import Status, new_class
from napari_dinoaugseg.session.project import Project
from napari_dinoaugseg.session.project_export import write_nnunet
from tests.case.builders import COLOUR, GREY, listing, numbers, save, write_dicom, write_nifti

SHAPE = (7, 6, 5)
LIVER, TUMOUR = new_class(1, "liver"), new_class(3, "tumour")
AFFINE = np.diag([-0.8, -0.7, 2.5, 1.0])


def label(project: Project, number: int, slices: dict[int, NDArray[Any]]) -> None:
    case = project.find(str(number))
    session, store, _ = project.session(case)
    session.labels.label(slices, classes=(LIVER, TUMOUR))
    project.keep(case, session, store)
    store.close()


def book(project: Project, number: int) -> Any:
    return project.book(project.find(str(number)))[0]


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Project]:
    """Case 1 done, 2 with one painted slice, 3 a DICOM series without labels, 4 as well."""
    write_nifti(tmp_path / "anna.nii.gz", numbers(SHAPE), AFFINE)
    write_nifti(tmp_path / "berta.nii", numbers(SHAPE, seed=1), AFFINE)
    write_dicom(tmp_path / "clara", numbers((5, 6, 7), np.uint16))
    write_nifti(tmp_path / "doris.nii", numbers(SHAPE, seed=3), AFFINE)
    with Project(tmp_path / "project") as project:
        for name in ("anna.nii.gz", "berta.nii", "clara", "doris.nii"):
            project.add(tmp_path / name, plane="axial")
        for number, slices in ((1, range(5)), (2, (1,))):
            label(project, number, {i: np.full((6, 7), (0, 1, 3, 1, 3)[i], np.uint16) for i in slices})
        project.find("1").is_done = True
        yield project


def predict_as_nnunet(dataset: Path, out: Path, value: int = 2) -> Path:
    """Write a mask of each image in imagesTs as nnU-Net does: on the grid of the image, dataset.json beside it."""
    out.mkdir()
    shutil.copy(dataset / "dataset.json", out)
    (out / "plans.json").write_text("{}")
    for file in sorted((dataset / "imagesTs").iterdir()):
        name = file.name.replace("_0000", "")
        if file.suffix == ".png":
            labels = np.zeros(np.asarray(Image.open(file)).shape[:2], np.uint8)
            labels[:2] = value
            Image.fromarray(labels).save(out / name)
            continue
        image = nib.load(file)
        labels = np.zeros(image.shape, np.uint8)
        labels[:3] = value
        nib.save(nib.Nifti1Image(labels, image.affine), out / name)
    return out


def test_masks_of_the_open_cases_come_back_with_the_classes_of_the_project(
    volumes: Project, tmp_path: Path, nnunet_check: Callable[[Path], None]
) -> None:
    made = write_nnunet(volumes, tmp_path / "Dataset001_A", to_predict=True)
    nnunet_check(tmp_path / "Dataset001_A")
    assert [entry.name for entry in made.entries] == ["case_001"]
    assert [entry.name for entry in made.to_predict] == ["case_002", "case_003", "case_004"]
    assert any(
        "3 cases for nnU-Net to predict, without labels in imagesTs: case_002, case_003, case_004" in notice
        for notice in made.notices
    )
    out = predict_as_nnunet(tmp_path / "Dataset001_A", tmp_path / "predicted")
    (out / "case_004.nii.gz").unlink()
    found = read_project_masks(volumes, out)
    assert found.missing == ["doris"]
    assert "Without a mask: doris." in found.notices
    taken = take_project_masks(volumes, found)
    assert taken.slices == {2: 4, 3: 5}
    assert taken.kept == {2: 1, 3: 0}
    assert taken.sentence() == (
        "Masks on 9 slices of 2 cases taken as predictions. 1 slice with labels stays as it is."
    )
    labels = book(volumes, 2)
    assert [labels.status(i) for i in range(5)] == [Status.PREDICTED, Status.MANUAL, *[Status.PREDICTED] * 3]
    assert (labels.manual(1) == 1).all()
    opened = volumes.opened(volumes.find("2"))
    native = np.zeros(SHAPE, np.uint16)
    native[:3] = 3
    for i in (0, 2, 3, 4):
        np.testing.assert_array_equal(labels.predicted(i), opened.to_slices(native)[i])
    assert set(np.unique(book(volumes, 3).predicted(0))) == {0, 3}
    assert book(volumes, 1).content().layers["predicted"] == {}


def test_a_model_leaves_them_alone_until_they_are_rejected(volumes: Project, tmp_path: Path) -> None:
    write_nnunet(volumes, tmp_path / "Dataset001_A", to_predict=True)
    out = predict_as_nnunet(tmp_path / "Dataset001_A", tmp_path / "predicted")
    take_project_masks(volumes, read_project_masks(volumes, out))
    labels = book(volumes, 2)  # as they are on disk
    assert labels.open_slices == []
    assert labels.confidence == {}
    assert labels.unseen() == [0, 2, 3, 4]
    assert volumes.status(volumes.find("2")).confidence is None
    labels.reject(3)
    assert labels.open_slices == [3]
    labels.undo()
    assert labels.open_slices == []
    labels.set_prediction(3, labels.predicted(3), 0.5)
    assert labels.open_slices == [3]
    labels.accept(0)
    assert (labels.of_slice(0).labels == labels.predicted(0)).all()


def test_all_is_checked_before_anything_is_changed(volumes: Project, tmp_path: Path) -> None:
    write_nnunet(volumes, tmp_path / "Dataset001_A", to_predict=True)
    out = predict_as_nnunet(tmp_path / "Dataset001_A", tmp_path / "predicted")
    image = nib.load(out / "case_004.nii.gz")
    content = np.asarray(image.dataobj)
    before = listing(volumes.folder)
    for change, words in (
        (nib.Nifti1Image(content, nib.affines.from_matvec(np.eye(3), [0, 0, 9]) @ image.affine), "do not fit doris"),
        (nib.Nifti1Image(np.concatenate([content, content]), image.affine), "do not fit doris"),
        (
            nib.Nifti1Image(content + np.uint8(5), image.affine),
            "it holds the value 5, which is none of the labels 1, 2",
        ),
        (nib.Nifti1Image(content * 0.4, image.affine), "which is not a label"),
    ):
        nib.save(change, out / "case_004.nii.gz")
        with pytest.raises(LabelError, match=words):
            read_project_masks(volumes, out)
    assert listing(volumes.folder) == before


def test_masks_of_another_project_are_refused(volumes: Project, tmp_path: Path) -> None:
    write_nnunet(volumes, tmp_path / "Dataset001_A", to_predict=True)
    out = predict_as_nnunet(tmp_path / "Dataset001_A", tmp_path / "predicted")
    description = json.loads((out / "dataset.json").read_text())
    description["fingerprints"]["case_002"] = "0" * 32
    (out / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(LabelError, match=r"case_002\.nii\.gz: it is the mask of another image than berta"):
        read_project_masks(volumes, out)


def test_masks_called_like_the_images_are_found_and_strangers_named(volumes: Project, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("berta", "emma"):
        write_nifti(tmp_path / "out" / f"{name}.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    (tmp_path / "out" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Tumour": 1}}))
    found = read_project_masks(volumes, tmp_path / "out")
    assert list(found.masks) == [2]
    assert "1 mask of no case of the project left out: emma.nii.gz." in found.notices
    take_project_masks(volumes, found)
    assert (book(volumes, 2).predicted(0) == 3).all()
    (tmp_path / "out" / "berta.nii.gz").unlink()
    with pytest.raises(LabelError, match=r"none of the masks \(emma\.nii\.gz\) is called like a case"):
        read_project_masks(volumes, tmp_path / "out")


@pytest.mark.parametrize("colour", [COLOUR, GREY], ids=["colour", "grey"])
def test_pictures_come_back_one_by_one(
    colour: NDArray[Any], tmp_path: Path, nnunet_check: Callable[[Path], None]
) -> None:
    for number in range(7):
        save(tmp_path / "in" / f"{number}.png", np.roll(colour, number, axis=1))
    with Project(tmp_path / "project") as project:
        project.add(tmp_path / "in")
        label(project, 1, {i: np.full(colour.shape[:2], (1, 3)[i % 2], np.uint16) for i in range(5)})
        project.find("1").is_done = True
        write_nnunet(project, tmp_path / "Dataset002_P", to_predict=True)
        nnunet_check(tmp_path / "Dataset002_P")
        assert {path.name for path in (tmp_path / "Dataset002_P" / "imagesTs").iterdir()} == {
            *("case_001-006_0000.png", "case_001-007_0000.png"),
        }
        out = predict_as_nnunet(tmp_path / "Dataset002_P", tmp_path / "predicted")
        found = read_project_masks(project, out)
        assert take_project_masks(project, found).slices == {1: 2}
        labels = book(project, 1)
        assert labels.status(5) is labels.status(6) is Status.PREDICTED
        assert (labels.predicted(5)[:2] == 3).all()
        assert (labels.predicted(5)[2:] == 0).all()
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(out / "case_001-006.png")
        with pytest.raises(LabelError, match=r"the mask is 3 x 3 pixels, but 5\.png is"):
            read_project_masks(project, out)
        Image.fromarray(COLOUR).save(out / "case_001-006.png")
        with pytest.raises(LabelError, match="colours or fractions"):
            read_project_masks(project, out)


def test_a_case_that_is_open_by_itself_takes_one_mask_or_a_folder(tmp_path: Path) -> None:
    case = open_case(write_nifti(tmp_path / "anna.nii.gz", numbers(SHAPE), AFFINE))
    write_nifti(tmp_path / "any name.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    masks = read_masks_of(case, tmp_path / "any name.nii.gz", [LIVER])
    assert len(masks) == case.n_slices
    save(tmp_path / "in" / "a.jpg", GREY)
    save(tmp_path / "in" / "b.jpg", GREY)
    pictures = open_case(tmp_path / "in")
    save(tmp_path / "out" / "a.png", (GREY > 9).astype(np.uint8))
    masks = read_masks_of(pictures, tmp_path / "out", [LIVER])
    assert len(masks) == 1
    assert masks.notices == ["1 picture without a mask: b.jpg."]
    save(tmp_path / "others" / "c.png", (GREY > 9).astype(np.uint8))
    with pytest.raises(LabelError, match="called like in or one of its pictures"):
        read_masks_of(pictures, tmp_path / "others", [LIVER])


def test_a_loop_comes_back_frame_by_frame(tmp_path: Path) -> None:
    write_nifti(tmp_path / "loop.nii.gz", numbers((6, 7, 1, 4)), AFFINE)
    with Project(tmp_path / "project") as project:
        project.add(tmp_path / "loop.nii.gz")
        label(project, 1, {0: np.ones((7, 6), np.uint16)})
        project.find("1").is_done = True
        write_nnunet(project, tmp_path / "Dataset003_L")
        (tmp_path / "out").mkdir()
        shutil.copy(tmp_path / "Dataset003_L" / "dataset.json", tmp_path / "out")
        image = nib.load(tmp_path / "Dataset003_L" / "imagesTr" / "case_001_0000.nii.gz")
        values = np.broadcast_to(np.arange(4, dtype=np.uint8) % 3, (6, 7, 4))
        nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "out" / "case_001.nii.gz")
        take_project_masks(project, read_project_masks(project, tmp_path / "out"))
        labels = book(project, 1)
        assert [int(labels.predicted(i).max()) for i in (1, 2, 3)] == [1, 3, 0]
        assert (labels.manual(0) == 1).all()


def test_a_stack_of_tiff_pages_comes_back(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", numbers((5, 6, 7), np.uint8))
    with Project(tmp_path / "project") as project:
        project.add(tmp_path / "stack.tif")
        label(project, 1, {0: np.ones((6, 7), np.uint16)})
        project.find("1").is_done = True
        write_nnunet(project, tmp_path / "Dataset004_T")
        shutil.copytree(tmp_path / "Dataset004_T" / "labelsTr", tmp_path / "out")
        shutil.copy(tmp_path / "Dataset004_T" / "dataset.json", tmp_path / "out")
        image = nib.load(tmp_path / "out" / "case_001.nii.gz")
        values = np.broadcast_to(np.arange(5, dtype=np.uint8) % 3, (7, 6, 5))
        nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "out" / "case_001.nii.gz")
        take_project_masks(project, read_project_masks(project, tmp_path / "out"))
        assert [int(book(project, 1).predicted(i).max()) for i in range(1, 5)] == [1, 3, 0, 1]


def test_values_without_a_description_are_class_numbers_only_without_gaps(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    assert find_masks(tmp_path, [LIVER, new_class(2)]).class_of == {1: 1, 2: 2}
    with pytest.raises(LabelError, match=r"the classes 1, 3 have other numbers in nnU-Net, and no dataset\.json"):
        find_masks(tmp_path, [LIVER, TUMOUR])
    with pytest.raises(LabelError, match="there is none yet"):
        find_masks(tmp_path, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not describe a dataset"),
        ('{"labels": []}', "does not describe a dataset"),
        ('{"labels": {"background": 0, "liver": [1, 2]}}', "not one number each"),
        ('{"labels": {"background": 0, "liver": 70000}}', "not one number each"),
        ('{"labels": {"background": 0, "liver": -1}}', "not one number each"),
        ('{"labels": {"background": 0, "spleen": 1}}', r"its label 1 \(spleen\) is no class here"),
        ('{"labels": {"liver": 1}, "class_of_label": {"1": 7}}', "is class 7, which is missing here"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(content: str, words: str, tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(LabelError, match=words):
        find_masks(tmp_path, [LIVER, TUMOUR])


def test_names_in_a_description_lead_to_classes(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    described = {"labels": {"background": 0, "LIVER": 1, "tumour (class 3)": 2, "ignore": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    found = find_masks(tmp_path, [LIVER, TUMOUR])
    assert (found.class_of, found.notices) == ({1: 1, 2: 3}, ())
    described["class_of_label"] = {"1": 3, "2": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert find_masks(tmp_path, [LIVER, TUMOUR]).notices == (
        "Label 1 is called 'LIVER' there: it is class 3, 'tumour', here.",
        "Label 2 is called 'tumour (class 3)' there: it is class 1, 'liver', here.",
    )


def test_a_folder_without_masks_and_two_of_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="there is no such file or folder"):
        find_masks(tmp_path / "none", [LIVER])
    with pytest.raises(LabelError, match="there is no mask here"):
        find_masks(tmp_path, [LIVER])
    write_nifti(tmp_path / "a.nii.gz", np.ones(SHAPE, np.uint8), AFFINE)
    write_nifti(tmp_path / "a.nii", np.ones(SHAPE, np.uint8), AFFINE)
    with pytest.raises(LabelError, match="is a mask of the same name"):
        find_masks(tmp_path, [LIVER])
