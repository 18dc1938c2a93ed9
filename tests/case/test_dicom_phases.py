"""Several volumes in one series are told apart where that is sure, and refused where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinoaugseg.case import VolumeCase, open_case
from napari_dinoaugseg.errors import CaseError, Hint, SeveralVolumesError
from tests.case.builders import numbers, write_dicom

PHASES = [numbers((4, 5, 6), np.uint16, seed=seed) for seed in range(3)]
Tags = Callable[[int, int], dict[str, Any]]


def write_phases(folder: Path, tags: Tags, phases: int = 3, order: list[int] | None = None) -> None:
    """Write several volumes as one series; `tags` gives the attributes of slice k in a phase."""
    for phase in range(phases):

        def change(k: int, dataset: pydicom.Dataset, phase: int = phase) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{phase}.{k}"
            del dataset.InstanceNumber
            for keyword, value in tags(phase, k).items():
                setattr(dataset, keyword, value)

        def name(k: int, phase: int = phase) -> str:
            number = phase * 4 + k
            return f"{number if order is None else order[number]:03d}.dcm"

        write_dicom(folder, PHASES[phase], names=name, change=change)


def opened(folder: Path, component: int) -> VolumeCase:
    case = open_case(folder, component=component, plane="native")
    assert isinstance(case, VolumeCase)
    return case


@pytest.mark.parametrize(
    ("tags", "by"),
    [
        (lambda phase, k: {"TemporalPositionIdentifier": phase + 1}, "TemporalPositionIdentifier: 1, 2, 3"),
        (lambda phase, k: {"EchoNumbers": phase + 1, "InstanceNumber": 3 * k - phase}, "EchoNumbers: 1, 2, 3"),
        (lambda phase, k: {"EchoTime": 2.5 * (phase + 1)}, "EchoTime: 2.5, 5.0, 7.5"),
        (lambda phase, k: {"ImageType": ["ORIGINAL", "PRIMARY", "FIP"[phase]]}, "ImageType"),
        (lambda phase, k: {"AcquisitionNumber": phase + 9}, "AcquisitionNumber: 9, 10, 11"),
        (lambda phase, k: {"AcquisitionTime": f"09{phase:02d}00.5"}, "AcquisitionTime: 090000.5"),
        # The trigger time of a phase differs a little from slice to slice.
        (lambda phase, k: {"TriggerTime": 300 * phase + 7.5 * k, "InstanceNumber": 1}, "the order of TriggerTime"),
        # Slice after slice, each with all its phases; and phase after phase.
        (lambda phase, k: {"InstanceNumber": 3 * k + phase}, "the order of InstanceNumber"),
        (lambda phase, k: {"InstanceNumber": 4 * phase + k}, "the order of InstanceNumber"),
    ],
)
def test_phases_are_told_apart_and_chosen_by_number(tags: Tags, by: str, tmp_path: Path) -> None:
    write_phases(tmp_path / "mr", tags)
    with pytest.raises(SeveralVolumesError) as caught:
        open_case(tmp_path / "mr")
    assert caught.value.count == 3
    assert (caught.value.hint, caught.value.message.facts) == (Hint.CHOOSE_VOLUME, {"last": 2})
    for part in ("mr: the series holds 3 volumes", "same position", by):
        assert part in str(caught.value)
    for phase in range(3):
        case = opened(tmp_path / "mr", phase)
        assert all(np.array_equal(case.slice(k), PHASES[phase][k].astype(np.float32) - 1024) for k in range(4))
        assert case.notices == [f"volume {phase} (from 0) of the 3 in this series"]
    for wrong in (3, -1):
        with pytest.raises(CaseError, match=f"no component {wrong}"):
            open_case(tmp_path / "mr", component=wrong)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(12)), phase=st.integers(0, 2))
def test_names_of_files_do_not_matter(order: list[int], phase: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("phases")
    write_phases(folder, lambda phase, k: {"TriggerTime": 300 * phase + 7.5 * k}, order=order)
    case = opened(folder, phase)
    assert all(np.array_equal(case.slice(k), PHASES[phase][k].astype(np.float32) - 1024) for k in range(4))


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    write_phases(tmp_path, lambda phase, k: {"AcquisitionTime": f"{(9, 10, 11)[phase]:02d}0000.{k}"})
    case = opened(tmp_path, 1)
    assert np.array_equal(case.slice(0), PHASES[1][0].astype(np.float32) - 1024)


@pytest.mark.parametrize(
    "tags",
    [
        lambda phase, k: {},
        lambda phase, k: {"InstanceNumber": k},
        # Two of three images of one slice carry the same number.
        lambda phase, k: {"InstanceNumber": 3 * k + (phase if k else min(phase, 1))},
    ],
)
def test_what_nothing_tells_apart_is_refused(tags: Tags, tmp_path: Path) -> None:
    write_phases(tmp_path / "mr", tags)
    with pytest.raises(CaseError, match="same position") as caught:
        open_case(tmp_path / "mr")
    assert not isinstance(caught.value, SeveralVolumesError)


def test_a_localizer_in_three_planes_is_three_volumes(tmp_path: Path) -> None:
    for n, axes in enumerate(([0, 1], [0, 2], [1, 2])):

        def change(k: int, dataset: pydicom.Dataset, n: int = n) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{n}.{k}"
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        directions = np.eye(3)[:, axes]
        write_dicom(tmp_path, PHASES[n], directions=directions, names=lambda k, n=n: f"{n}{k}.dcm", change=change)
    with pytest.raises(SeveralVolumesError, match=r"3 volumes \(3 stacks"):
        open_case(tmp_path)
    planes = ["axial", "coronal", "sagittal"]
    assert [open_case(tmp_path, component=n).plane for n in range(3)] == planes


def test_an_incomplete_phase_is_refused(tmp_path: Path) -> None:
    write_phases(tmp_path / "mr", lambda phase, k: {"TemporalPositionIdentifier": phase + 1})
    (tmp_path / "mr" / "005.dcm").unlink()
    with pytest.raises(CaseError, match="same position") as caught:
        open_case(tmp_path / "mr")
    assert not isinstance(caught.value, SeveralVolumesError)


def test_a_copy_of_the_files_is_no_second_phase(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dicom(tmp_path / "ct" / name, PHASES[0])
    case = open_case(tmp_path / "ct", plane="native")
    assert case.n_slices == 4
    assert case.notices[0].startswith("4 copies of images that are there left out: IM000.dcm, IM001.dcm")


def test_a_phase_with_a_gap_is_told_when_it_is_chosen(tmp_path: Path) -> None:
    write_phases(tmp_path / "mr", lambda phase, k: {"EchoNumbers": phase + 1})
    for phase in range(3):
        (tmp_path / "mr" / f"{phase * 4 + 1:03d}.dcm").unlink()
    case = open_case(tmp_path / "mr", component=1)
    assert any("gap of 6 mm" in notice for notice in case.notices)


def test_a_series_of_one_volume_has_component_zero_only(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", PHASES[0])
    assert opened(tmp_path / "ct", 0).notices == []
    with pytest.raises(CaseError, match="no component 1"):
        open_case(tmp_path / "ct", component=1)


@pytest.mark.data
def test_a_real_heart_in_two_phases(shared_data: Path) -> None:
    """End-diastole is triggered late (about 0.7 s after the R wave), end-systole early."""
    patient = shared_data / "sunnybrook_dicom" / "train" / "SCD0000101"
    with pytest.raises(SeveralVolumesError) as caught:
        open_case(patient)
    assert caught.value.count == 2
    for component, name in ((0, "ES"), (1, "ED")):
        assert open_case(patient, component=component).fingerprint == open_case(patient / name).fingerprint
