import torch

from napari_dinoaugseg.learning.views import View, views_for


def disc(size=64):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((rows - 40) ** 2 + (columns - 24) ** 2 < 12**2).to(torch.int16)


def test_a_view_is_the_same_every_time_and_differs_from_the_next():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, again, other = (View(n, seed=3).of_image(image) for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, View(1, seed=4).of_image(image))


def test_image_and_labels_move_together():
    labels = disc()
    image = labels.float().expand(3, -1, -1).clone()
    for number in range(1, 9):
        view = View(number, flips=True)
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
        seen = View(number, flips=False).of_image(image)
        assert torch.allclose(seen[0], seen[1])
        assert seen[0, 16:48, 52].mean() > seen[0, 16:48, 12].mean()


def test_the_plain_slice_comes_first_and_every_key_differs():
    views = views_for(4, seed=1, flips=True)
    assert views[0] is None
    assert len({view.key for view in views[1:]}) == 4
    assert View(1, flips=True).key != View(1, flips=False).key
