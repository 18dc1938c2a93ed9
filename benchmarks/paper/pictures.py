"""Loaders of the sets of pictures: TN3K, Kvasir-SEG and ISIC 2018, in their public layouts."""

from __future__ import annotations

from pathlib import Path

from benchmarks.paper import published
from benchmarks.paper.files import folder_below
from benchmarks.paper.sources import DataSet, PictureSource, left_out
from napari_dinoaugseg.case.files import look_into

LEFT_BY_DRAW = "pictures that a draw leaves, for the authors' list, a part of the training pictures, is not public"
_SUPERPIXELS = "_superpixels"  # ISIC puts its superpixels among the pictures


def load_tn3k(root: Path) -> DataSet:
    """TN3K: trainval-image, trainval-mask, test-image, test-mask."""
    pool, notices = _pairs(root, "trainval-image", "trainval-mask")
    test, more = _pairs(root, "test-image", "test-mask")
    return DataSet(pool, test, "as released", "the released test pictures", True, notices + more)


def load_kvasir(root: Path) -> DataSet:
    """Kvasir-SEG: images, masks; tested on the names of its official split."""
    found, notices = _pairs(root, "images", "masks")
    tested = published.authors_test("kvasir")
    test = [source for source in found if source.name in tested]
    pool = [source for source in found if source.name not in tested]
    return DataSet(pool, test, "as released", "the 120 test pictures of the official split", True, notices)


def load_isic2018(root: Path) -> DataSet:
    """ISIC 2018, task 1: its test part where it lies here, or else its validation part."""
    pool, notices = _pairs(
        root, "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", "_segmentation"
    )
    for part in ("Test", "Validation"):
        images, masks = f"ISIC2018_Task1-2_{part}_Input", f"ISIC2018_Task1_{part}_GroundTruth"
        test, more = _pairs(root, images, masks, "_segmentation")
        if test:
            split = (
                f"the {part.lower()} part of the challenge, for the authors' list, a part of the training pictures, is "
                "not public"
            )
            return DataSet(pool, test, "as released", split, False, notices + more)
    return DataSet(pool, [], "as released", LEFT_BY_DRAW, False, notices)


def _pairs(root: Path, images: str, masks: str, ending: str = "") -> tuple[list[PictureSource], list[str]]:
    """Pictures with the mask of the same stem and ``ending``, in natural order; a notice of those without a mask."""
    images_at, masks_at = folder_below(root, images), folder_below(root, masks)
    if images_at is None or masks_at is None:
        return [], []
    mask_of = {path.stem: path for path in look_into(masks_at).pictures}
    pictures = [path for path in look_into(images_at).pictures if not path.stem.endswith(_SUPERPIXELS)]
    found = [PictureSource(path, mask_of[path.stem + ending]) for path in pictures if path.stem + ending in mask_of]
    return found, left_out([path.name for path in pictures if path.stem + ending not in mask_of], "a mask")
