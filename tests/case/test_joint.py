"""Several cases as one series of slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_dinoaugseg.case import case_from_array, open_case
from napari_dinoaugseg.case.joint import JointSlices
from napari_dinoaugseg.errors import CaseError


def case_of(n_slices: int, value: int):
    return case_from_array(np.full((n_slices, 4, 5), value, np.float32), name=f"case {value}")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 3))
def test_every_slice_is_that_of_its_own_case(sizes, distance):
    cases = [case_of(size, value) for value, size in enumerate(sizes)]
    joint = JointSlices(cases)
    assert joint.n_slices == sum(sizes)
    assert [numbers for numbers, _ in joint.parts][-1].stop == joint.n_slices
    for numbers, case in joint.parts:
        for i in numbers:
            own = i - numbers.start
            assert np.array_equal(joint.slice(i), case.slice(own))
            assert joint.slice_shape(i) == case.slice_shape(own)
            assert joint.slice_fingerprint(i) == case.slice_fingerprint(own)
            # A neighbour never lies in another patient.
            assert set(joint.neighbours(i, distance)) <= set(numbers)
            assert [n - numbers.start for n in joint.neighbours(i, distance)] == list(case.neighbours(own, distance))


def test_the_range_covers_all_cases():
    assert JointSlices([case_of(2, 3), case_of(2, 40), case_of(1, 7)]).intensity_range() == (3, 40)


def test_volumes_and_pictures_are_not_joined(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "picture.png")
    with pytest.raises(CaseError, match="two projects"):
        JointSlices([case_of(2, 1), open_case(tmp_path / "picture.png")])
