"""Methods to compare, by name: ours, ours without an idea, and peers on the same features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from benchmarks.methods.forest import learn_forest
from benchmarks.methods.networks import learn_light, learn_linear, learn_unet
from benchmarks.methods.ours import learn
from benchmarks.methods.problem import Learnt, Problem
from napari_dinoaugseg.learning.settings import Settings

__all__ = ["METHODS", "REFERENCE", "Learnt", "Method", "Problem"]


REFERENCE = "balanced"
"""What the others are compared with."""
_ONE_SIDE = "balanced-one-side"


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        name: on the command line and in tables.
        about: what it is, for the head of a table.
        learn: from labelled slices.
        settings: of the program, which the features follow; None = those of the defaults.
        against: the method that it is compared with.
    """

    name: str
    about: str
    learn: Callable[[Problem], Learnt]
    settings: Settings | None = None
    against: str = REFERENCE


def _ours(name: str, about: str, settings: Settings, against: str = REFERENCE) -> Method:
    return Method(name, about, partial(learn, settings=settings), settings, against)


def _without(name: str, about: str, **changes: Any) -> Method:
    """An ablation: of the training alone, so pictures are predicted as they are."""
    return _ours(name, f"{_ONE_SIDE} {about}", Settings(mirrors=False, **changes), _ONE_SIDE)


METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            _ours("balanced", "the program's default preset", Settings()),
            _ours("fast", "the program's preset for a first look", Settings.of_preset("fast")),
            _ours("adapt", "the program's preset in which the encoder learns, too", Settings.of_preset("adapt")),
            _ours(
                "paper",
                "the paper's recipe (its widths, loss, optimiser, single precision; no views, no neighbouring slices) "
                "at this input size, not at its 768 pixels, with one window for a volume as the others, and as many of "
                "its 2000 steps as the time allows",
                Settings.of_preset("paper", scaling="window"),
            ),
            _ours(_ONE_SIDE, "balanced, with pictures predicted from one side only", Settings(mirrors=False)),
            _without("balanced-no-wtaug", "without WT-Aug", augment_probability=0.0),
            _without("balanced-no-cgfuse", "with plain skip connections for CG-Fuse", fuse=False),
            _without("balanced-neither", "without both", augment_probability=0.0, fuse=False),
            _ours("balanced-longer", "with twice the steps and views", Settings(steps=600, views=31)),
            Method("linear", "linear probe on the frozen features, same views, same loss", learn_linear),
            Method("light", "1x1 projections and a two-layer head (as SegDINO), same views, same loss", learn_light),
            Method("forest", "random forest on the frozen features of single pixels, same views", learn_forest),
            Method("unet", "U-Net from scratch on the images, 63 views each, same loss", learn_unet),
        )
    }
)
