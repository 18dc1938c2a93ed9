"""How long a training will take: from what this machine has shown, before that from a table, and said to be rough."""

from __future__ import annotations

from dataclasses import dataclass

from napari_dinoaugseg.learning.settings import Settings

# Seconds on two cores of a server of 2020, at 256 pixels: a slice through efficientnet-lite0, one training step with a
# decoder of 64 channels and full convolutions on 4 slices, the prediction of one slice with its encoding.
_ENCODE, _STEP, _PREDICT = 0.05, 0.25, 0.11
_LEAN = 0.6  # of that, with the other kinds of blocks
_SIDES = 3  # pictures of one structure are seen from two sides, or four where they are coloured
_SLOWER = {"tiny": 6.0, "small": 10.0, "base": 20.0, "large": 40.0}  # encoders against efficientnet-lite0


@dataclass
class Pace:
    """Seconds for one unit of each stage, as last measured with some settings; None = not measured."""

    encode: float | None = None
    train: float | None = None
    predict: float | None = None

    def forget(self) -> None:
        """Other settings have another pace."""
        self.encode = self.train = self.predict = None


def estimate(
    settings: Settings,
    encoder: str | None,
    new: int,
    to_predict: int,
    *,
    kind: str,
    classes: int,
    warm: bool,
    pace: Pace,
) -> float:
    """Seconds until masks are on every slice.

    Args:
        settings: how to learn.
        encoder: its name where known.
        new: labelled slices that were not learnt from before; their views have to be encoded.
        to_predict: slices that get masks.
        kind: of the study, "volume" or "pictures".
        classes: how many, without the background; more take more steps.
        warm: whether a trained model is continued.
        pace: what was measured.
    """
    area = (settings.input_size / 256) ** 2
    heavier = next((factor for name, factor in _SLOWER.items() if encoder and encoder.endswith(name)), 1.0)
    width = (settings.width or 256) / 64
    encode = pace.encode if pace.encode is not None else _ENCODE * area * heavier
    blocks = 1.0 if settings.blocks == "conv" else _LEAN
    step = pace.train if pace.train is not None else _STEP * blocks * area * width * settings.batch_size / 4
    sides = _SIDES if kind == "pictures" and settings.mirrors and classes == 1 else 1
    predict = pace.predict if pace.predict is not None else _PREDICT * area * max(1.0, heavier / 2) * sides
    steps = settings.planned_steps(classes + 1, new, warm=warm)
    views = min(new * (settings.views + 1), steps * settings.batch_size)  # no more than the steps can show
    return views * encode + steps * step + to_predict * predict


def in_words(seconds: float) -> str:
    """A time as people say it, never more exact than it is."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"
