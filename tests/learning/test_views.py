from typing import get_args

import pytest
import torch

from napari_dinoaugseg.learning.augmentation import Symmetry, View, symmetry_of, tta_views, views_for


def disc(size=64):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((rows - 40) ** 2 + (columns - 24) ** 2 < 12**2).to(torch.int16)


def test_a_view_is_the_same_every_time_and_differs_from_the_next():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, again, other = (View(n, seed=3).of_image(image) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, View(1, seed=4).of_image(image))


@pytest.mark.parametrize("symmetry", get_args(Symmetry))
def test_image_and_labels_move_together(symmetry):
    labels = disc()
    image = labels.float().expand(3, -1, -1).clone()
    for number in range(1, 9):
        view = View(number, symmetry=symmetry)
        seen, moved = view.of_image(image)[0], view.of_labels(labels)
        middle = (seen.min() + seen.max()) / 2
        disagree = ((seen > middle) != (moved > 0)).float().mean()
        assert disagree < 0.01, f"view {number} moves the image elsewhere than its labels"


def test_labels_stay_the_values_they_were_and_images_stay_in_range():
    labels = disc() * 5 - 1
    assert set(View(3).of_labels(labels).unique().tolist()) <= {-1, 4}
    seen = View(3).of_image(torch.rand(3, 64, 64))
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_grey_stays_grey_and_upright_views_are_never_mirrored():
    image = torch.linspace(0, 1, 64).expand(3, 64, 64).clone()
    for number in range(1, 12):
        seen = View(number).of_image(image)
        assert torch.allclose(seen[0], seen[1])
        assert seen[0, 16:48, 52].mean() > seen[0, 16:48, 12].mean()


def test_the_plain_slice_comes_first_and_every_key_differs():
    views = views_for(4, 1, "any")
    assert views[0] is None
    assert len({view.key for view in views[1:]}) == 4
    assert len({View(1, symmetry=symmetry).key for symmetry in get_args(Symmetry)}) == 3


def towards(view, size=64):
    """Where a view puts the upper left corner: (towards the right, towards the bottom) as seen from the middle."""
    ramp = torch.linspace(-1, 1, size)
    seen = [view.of_labels((1000 * axis).to(torch.int16)).float() for axis in torch.meshgrid(ramp, ramp, indexing="xy")]
    middle = slice(size // 4, 3 * size // 4)
    return [
        float((axis[middle, 3 * size // 4] - axis[middle, size // 4]).mean())
        if number == 0
        else float((axis[3 * size // 4, middle] - axis[size // 4, middle]).mean())
        for number, axis in enumerate(seen)
    ]


def test_each_symmetry_exchanges_the_sides_that_it_may():
    for symmetry, expected in (("upright", {(True, True)}), ("sides", {(True, True), (False, True)})):
        seen = {tuple(step > 0 for step in towards(View(number, symmetry=symmetry))) for number in range(1, 33)}
        assert seen == expected
    turned = [towards(View(number, symmetry="any")) for number in range(1, 33)]
    assert {down > 0 for _, down in turned} == {True, False}


def test_pictures_of_one_structure_turn_as_freely_as_their_kind_allows():
    grey, colour = torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.4)
    colour[0] += 0.3
    marked = grey.clone()
    marked[:, 0, 0] = torch.tensor([1.0, 0.0, 0.0])
    assert symmetry_of("pictures", [colour], 2) == "any"
    assert symmetry_of("pictures", [grey, marked], 2) == "sides"
    assert symmetry_of("pictures", [colour], 3) == "upright"
    assert symmetry_of("volume", [grey], 2) == "upright"


def test_mirrored_twice_is_as_it_was_and_each_mirror_is_another():
    image = torch.rand(3, 8, 8)
    mirrors = tta_views("any")
    assert [len(tta_views(symmetry)) for symmetry in ("upright", "sides", "any")] == [0, 1, 3]
    for mirror in mirrors:
        assert torch.equal(mirror.of_image(mirror.of_image(image)), image)
    assert torch.equal(tta_views("sides")[0].of_image(image), image[:, :, [*range(7, -1, -1)]])
    assert len({mirror.key for mirror in mirrors}) == 3
