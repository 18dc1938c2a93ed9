"""Surfaces of classes: nothing labelled is invisible, and their volumes are those of the labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_dinoaugseg.case import open_case
from napari_dinoaugseg.session.export import MANUAL_AND_ACCEPTED
from napari_dinoaugseg.session.labels import EVERYTHING
from napari_dinoaugseg.session.session import Session
from napari_dinoaugseg.session.surfaces import class_surfaces, simplified, surface_of


def _ball(shape=(40, 44, 48), centre=(20, 22, 24), radius=14.0) -> np.ndarray:
    grid = np.ogrid[tuple(slice(size) for size in shape)]
    return sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < radius**2


def _enclosed(vertices: np.ndarray, faces: np.ndarray) -> float:
    """The volume inside a closed surface."""
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) / 6)


def _check_ball(vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, tolerance: float) -> None:
    out = vertices - (20, 22, 24)
    radii = np.linalg.norm(out, axis=1)
    assert radii.min() > 13
    assert radii.max() < 15
    assert _enclosed(vertices, faces) == pytest.approx(_ball().sum(), rel=tolerance)
    assert (np.einsum("ij,ij->i", out / radii[:, None], normals) > 0.9).all()


def test_the_surface_of_a_ball_is_a_ball_with_normals_outwards() -> None:
    vertices, normals, faces = surface_of(_ball())
    _check_ball(vertices, normals, faces, 0.05)


def test_each_edge_of_a_surface_joins_two_triangles() -> None:
    _, _, faces = surface_of(_ball())
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_a_class_that_fills_the_volume_has_a_closed_surface() -> None:
    vertices, _, faces = surface_of(np.ones((12, 40, 10), bool))
    assert _enclosed(vertices, faces) == pytest.approx(12 * 40 * 10, rel=0.12)  # rounder edges


def test_normals_are_perpendicular_where_voxels_are_not_cubes() -> None:
    # A ball in millimetres, of slices 4 mm apart.
    depth, height, width = np.ogrid[:21, :60, :60]
    inside = (4 * (depth - 10)) ** 2 + (height - 30) ** 2 + (width - 30) ** 2 < 24**2
    vertices, normals, _ = surface_of(inside, (4.0, 1.0, 1.0))
    out = (vertices - (10, 30, 30)) * (4, 1, 1)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", out, normals).min() > 0.8


@settings(max_examples=40, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 20)] * 3), elements=st.booleans(), fill=st.just(False)))
def test_each_labelled_voxel_is_inside_or_beside_the_surface(inside) -> None:
    if not inside.any():
        inside[0, 0, 0] = True
    vertices, normals, faces = surface_of(inside)
    assert faces.max() < len(vertices) == len(normals)
    assert np.isfinite(vertices).all()
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    for piece in range(1, count + 1):
        voxels = np.argwhere(pieces == piece)
        nearest = np.linalg.norm(vertices[:, None] - voxels[None], axis=2).min()
        assert nearest <= 1.0, "a piece has no surface"


def test_a_ball_of_fewer_triangles_is_still_a_ball() -> None:
    whole = surface_of(_ball())
    vertices, normals, faces = simplified(*whole, (1.0, 1.0, 1.0), len(whole[2]) // 6)
    assert len(faces) < len(whole[2]) / 5
    _check_ball(vertices, normals, faces, 0.06)


def test_a_thin_sheet_of_fewer_triangles_keeps_its_two_sides() -> None:
    whole = surface_of(np.ones((60, 60, 2), bool))
    vertices, normals, faces = simplified(*whole, (1.0, 1.0, 1.0), len(whole[2]) // 6)
    assert len(faces) < len(whole[2]) / 4
    assert _enclosed(vertices, faces) == pytest.approx(_enclosed(whole[0], whole[2]), rel=0.06)
    assert np.abs(normals[:, 2]).max() > 0.99


@settings(max_examples=40, deadline=None)
@given(
    arrays(bool, st.tuples(*[st.integers(1, 20)] * 3), elements=st.booleans(), fill=st.just(False)),
    st.tuples(*[st.floats(0.3, 4)] * 3),
    st.integers(1, 400),
)
def test_no_piece_disappears_with_fewer_triangles(inside, steps, limit) -> None:
    inside[0, 0, 0] = True
    inside = np.pad(inside, ((0, 8), (0, 8), (0, 8)))
    inside[-5, -5, :] = True  # a thin vessel
    vertices, normals, faces = simplified(*surface_of(inside, steps), steps, limit)
    assert faces.max() < len(vertices) == len(normals)
    assert (np.diff(np.sort(faces, axis=1), axis=1) > 0).all(), "a triangle has no area"
    corners = vertices[np.unique(faces)]
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    for piece in range(1, count + 1):
        voxels = np.argwhere(pieces == piece)
        away = np.abs(corners[:, None] - voxels[None]) * (np.array(steps) / min(steps))
        assert np.linalg.norm(away, axis=2).min() <= 4.0, "a piece has no surface"


@pytest.fixture
def session(tmp_path) -> Session:
    path = tmp_path / "case.nii.gz"
    # Voxels of 0.5 x 0.8 x 3 mm.
    nib.save(nib.Nifti1Image(np.zeros((20, 24, 10), np.float32), np.diag([0.5, 0.8, 3.0, 1.0])), path)
    made = Session(open_case(path, plane="axial"))
    for name in ("one", "two", "without labels"):
        made.labels.rename_class(made.labels.add_class().number, name)
    return made


def test_volumes_and_places_are_those_of_the_labels(session) -> None:
    painted = np.zeros((24, 20), np.uint16)
    painted[2:12, 3:9] = 2
    painted[14, 17] = 1
    for index in (4, 5, 6):
        session.labels.set_manual(index, painted)
    one, two = class_surfaces(session)
    assert (one.entry.name, two.entry.name) == ("one", "two")
    assert (one.voxels, two.voxels) == (3, 180)
    assert two.volume_ml == pytest.approx(180 * 0.5 * 0.8 * 3 / 1000)
    assert two.vertices.min(axis=0) == pytest.approx((3.5, 1.5, 2.5), abs=1)
    assert two.vertices.max(axis=0) == pytest.approx((6.5, 11.5, 8.5), abs=1)


def test_predictions_count_only_where_they_are_wanted(session) -> None:
    labels = np.zeros((24, 20), np.uint16)
    labels[2:12, 3:9] = 1
    session.labels.set_manual(4, labels)
    session.labels.set_prediction(5, labels, 0.9)
    (everything,) = class_surfaces(session, EVERYTHING)
    (by_person,) = class_surfaces(session, MANUAL_AND_ACCEPTED)
    assert (everything.voxels, by_person.voxels) == (120, 60)
