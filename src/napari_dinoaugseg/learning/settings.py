"""The settings of training and prediction: one validated object.

The form in the panel, the options of the command line, the saved session and the validation derive from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from napari_dinoaugseg.errors import SettingsError

PresetName = Literal["fast", "balanced", "adapt", "paper"]


class Adaptation(BaseModel, frozen=True, extra="forbid"):
    """How the encoder learns, too, in the last steps of a training. Immutable.

    A training that continues a decoder does without the steps in which it is frozen: the decoder knows what is wanted.
    """

    after: float = Field(1 / 3, ge=0, le=1, description="Share of a first training's steps in which it is frozen")
    rate: float = Field(2e-4, gt=0, le=1, description="Its peak learning rate")


class Settings(BaseModel, frozen=True, extra="forbid"):
    """How the decoder is built, trained and used. Immutable; make changed copies with :meth:`with_changes`.

    The defaults are those of the preset ``balanced``; :meth:`of_preset` gives the others.
    """

    preset: PresetName = "balanced"
    encoder: str = Field("auto", description="Name of the encoder, or 'auto'")
    window: str = Field(
        "auto", description="Intensity window: 'auto', a CT preset, or 'low,high' in the image's own units"
    )
    input_size: int = Field(256, ge=64, le=1536, description="Side of the square that a slice is resized to, in pixels")
    context: int | None = Field(
        None, ge=0, le=8, description="How far the neighbours are that a slice is seen with; empty = by likeness"
    )
    scaling: Literal["window", "slice"] = Field(
        "window",
        description="Grey values from 0 to 1: by one window for all slices; or each slice and picture by itself, from "
        "its least to its greatest value in 8 bits (the paper), inside a window that is named",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="The same seed gives the same masks on a CPU, and on a graphics card almost"
    )

    width: int | None = Field(48, ge=16, le=512, description="Channels of the decoder; empty = the paper's widths")
    head: int | None = Field(
        16, ge=8, le=512, description="Channels of the decoder at half the input size; empty = the paper's"
    )
    rotary: Literal["1d", "2d"] = Field(
        "2d", description="Rotary positions in the attention: flattened, or rows and columns"
    )
    norm: Literal["batch", "group"] = Field("batch", description="Normalisation in the decoder's blocks")
    blocks: Literal["conv", "lean", "separable"] = Field(
        "lean", description="3x3 convolutions twice a stage, 1x1 and 3x3, or depth-wise separable 3x3 twice"
    )
    fuse: bool = Field(True, description="CG-Fuse; off = plain skip concatenation (for ablations)")
    fuse_from: Literal[4, 8, 16] = Field(4, description="Stride of the finest encoder map that CG-Fuse attends to")
    add_query: bool = Field(True, description="Concatenate the decoder map itself to the fused and the encoder map")

    steps: int = Field(300, ge=1, le=100_000, description="Optimisation steps of a first training with one class")
    class_steps: float = Field(0.1, ge=0, le=1, description="Share of the steps that each further class adds")
    shows: int = Field(
        0,
        ge=0,
        le=1000,
        description="Least times that a first training shows a labelled slice; 3 times the steps at most",
    )
    warm_steps: float = Field(0.4, gt=0, le=1, description="Share of the steps when a trained decoder is continued")
    batch_size: int = Field(4, ge=1, le=256, description="Slices per step")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate")
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    optimiser: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(1e-2, ge=0, le=1)
    adaptation: Adaptation | None = Field(None, description="How the encoder learns, too; empty = it is frozen")
    average: float = Field(0.97, ge=0, lt=1, description="Decay of the moving average of the weights; 0 = last weights")
    views: int = Field(15, ge=0, le=255, description="Augmented views of each labelled slice, encoded once")
    mirrors: bool = Field(
        True, description="Predict pictures that may be mirrored from both sides, in twice to four times the time"
    )
    augment_probability: float = Field(0.7, ge=0, le=1, description="How often WT-Aug fires in training")
    augment_drop: float = Field(0.3, ge=0, lt=1, description="Share of wavelet coefficients that WT-Aug zeroes")
    class_balance: float = Field(
        0.5, ge=0, le=1, description="Power by which rare ones of many classes weigh more; 0 = all alike"
    )
    absent_in_dice: bool = Field(False, description="Let classes that a batch does not hold count in the Dice loss")
    dice: Literal["squares", "sums"] = Field(
        "squares", description="Denominator of the Dice loss: squared probabilities, or plain ones (the paper)"
    )
    clip_gradient: float | None = Field(
        5.0, gt=0, le=1e6, description="Greatest norm of the gradient in a step; empty = not clipped (the paper)"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of training: bfloat16 where it pays, and features in half precision; float32 throughout, features "
        "included (the paper); or bfloat16 on every device",
    )
    resize: Literal["bilinear", "nearest"] = Field(
        "bilinear",
        description="Masks at a slice's own size: from enlarged logits; or chosen at the input size and resized to the "
        "nearest pixel (the paper)",
    )

    @field_validator("input_size")
    @classmethod
    def _multiple_of_32(cls, value: int) -> int:
        if value % 32:
            msg = (
                f"must be a multiple of 32 (the encoder's coarsest stride), for example {round(value / 32) * 32 or 64}"
            )
            raise ValueError(msg)
        return value

    @classmethod
    def of_preset(cls, preset: str, **changes: Any) -> Settings:
        """Settings of the preset ``fast``, ``balanced``, ``adapt`` or ``paper``, with some values changed.

        Raises:
            SettingsError: an unknown preset, an unknown name, or a value out of its range.
        """
        if preset not in PRESETS:
            msg = f"Unknown preset '{preset}'. Choose one of: {', '.join(PRESETS)}."
            raise SettingsError(msg)
        return cls.checked({**PRESETS[preset], "preset": preset, **changes})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from plain values, as read from a file. Raises SettingsError with a sentence for the person."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            msg = f"The setting '{name}' does not fit: {first['msg'].removeprefix('Value error, ')}."
            raise SettingsError(msg) from error

    def planned_steps(self, n_classes: int, n_slices: int, *, warm: bool) -> int:
        """The number of steps of a training.

        A first training takes more for many classes or many labelled slices, at most threefold for each; one that
        continues a trained decoder takes fewer.

        Args:
            n_classes: with the background.
            n_slices: that are labelled.
            warm: whether a trained decoder is continued.
        """
        factor = min(3.0, 1 + self.class_steps * max(0, n_classes - 2))
        if warm:
            return max(1, round(self.steps * factor * self.warm_steps))
        steps = min(max(self.steps, self.shows * n_slices / self.batch_size), 3 * self.steps)
        return max(1, round(steps * factor))

    def with_changes(self, **changes: Any) -> Settings:
        """A validated copy with some values changed."""
        return self.checked({**self.model_dump(), **changes})


# `paper` follows the paper and its authors' code: input, scaling, decoder, loss, optimiser, precision and masks;
# remaining differences are listed in docs/method.md. The others rest on single trials on public images, see
# docs/decisions. Files of older versions lack `scaling`, `dice`, `clip_gradient`, `precision` and `resize`: their
# behaviour is that of the defaults, for `paper` too.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "fast": {
            "width": 32,
            "fuse_from": 8,
            "steps": 100,
            "batch_size": 3,
            "learning_rate": 6e-3,
            "views": 7,
            "shows": 16,
            "mirrors": False,
        },
        "balanced": {},
        "adapt": {"adaptation": Adaptation()},
        "paper": {
            "input_size": 768,
            "context": 0,
            "scaling": "slice",
            "width": None,
            "head": None,
            "rotary": "1d",
            "norm": "batch",
            "blocks": "conv",
            "add_query": False,
            "steps": 2000,
            "warm_steps": 1.0,
            "batch_size": 2,
            "learning_rate": 1e-4,
            "schedule": "constant",
            "optimiser": "adam",
            "weight_decay": 0.0,
            "average": 0.0,
            "views": 0,
            "mirrors": False,
            "class_steps": 0.0,
            "class_balance": 0.0,
            "absent_in_dice": True,
            "dice": "sums",
            "clip_gradient": None,
            "precision": "float32",
            "resize": "nearest",
        },
    }
)
"""The settings of each preset that differ from the defaults of :class:`Settings`."""


def frozen_steps(settings: Settings, planned: int, *, warm: bool) -> int:
    """How many steps of a training leave the encoder as it is; in the others it learns.

    Args:
        settings: of the training.
        planned: all steps.
        warm: whether a trained decoder is continued.
    """
    if settings.adaptation is None:
        return planned
    return 0 if warm else round(settings.adaptation.after * planned)


def unknown_settings(values: Mapping[str, Any]) -> list[str]:
    """Names among saved settings that this version does not know; a newer one saved them."""
    return sorted(set(values) - set(Settings.model_fields))
