"""Scale image values to 0..1, the input range of encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinoaugseg.errors import SettingsError

if TYPE_CHECKING:
    from napari_dinoaugseg.case.case import Slices


# (lowest, highest) in Hounsfield units, from the level and width used in radiology.
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "soft tissue": (-160.0, 240.0),
    "mediastinum": (-125.0, 225.0),
    "liver": (-60.0, 140.0),
    "lung": (-1350.0, 150.0),
    "bone": (-450.0, 1050.0),
    "brain": (0.0, 80.0),
    "stroke": (20.0, 60.0),
    "angiography": (-50.0, 650.0),
}
# Air to dense bone: outside are padding, metal and the table, which would reduce the contrast of organs.
_CT_RANGE = (-1000.0, 600.0)


@dataclass(frozen=True)
class Window:
    """The values mapped to 0 and 1; others are clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raise `SettingsError` unless the window has a finite, positive width."""
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            msg = f"Give a window as two finite numbers, the lower one first, not {self.low:g} and {self.high:g}."
            raise SettingsError(msg)

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return `image` (any shape) scaled to 0..1 as float32."""
        # Divided first: the width of a window may exceed float32.
        scaled = (image.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.clip(scaled, 0.0, 1.0, out=scaled)


@dataclass(frozen=True)
class SliceRange:
    """Scale each slice or picture on its own from minimum to maximum, in steps of 1/255.

    This is the scaling of the paper's authors, with all channels of a colour picture together. They add 1e-8 to the
    range for constant slices, and truncate to 8 bits: the maximum becomes 1 in single precision, 254/255 in double.

    Attributes:
        within: values are clipped to this window first; None = no clipping.
    """

    within: Window | None = None

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return `image` (any shape) scaled to 0..1 as float32; 0 where all values are equal."""
        exact = image.dtype in (np.uint8, np.float32)  # for which the authors compute in single precision
        values = image.astype(np.float32 if exact else np.float64)
        if self.within is not None:
            values = np.clip(values, self.within.low, self.within.high)
        low, high = values.min(), values.max()
        levels = ((values - low) / (high - low + 1e-8) * 255).astype(np.uint8)
        unit: NDArray[np.float32] = levels.astype(np.float32) / np.float32(255)
        return unit


Scale = Window | SliceRange | None
"""The scaling of a slice to 0..1; None divides 8-bit values by 255."""


def robust_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile, or the extremes if these coincide (a nearly empty image)."""
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def choose_window(case: Slices, name: str = "auto") -> Window | None:
    """Return the window that scales the grey values of a case to 0..1.

    Args:
        case: the case.
        name: "auto", "percentiles", a name of `CT_WINDOWS`, or two numbers such as "-160,240".

    Returns:
        A window for the whole case, or None if 8-bit values are divided by 255: colour, and 8-bit pictures with "auto".

    Raises:
        SettingsError: unknown window.
    """
    wanted = name.strip().lower().replace("_", " ").replace("-", " ") if "," not in name else name
    if "," in name:
        return _numbers(name)
    if wanted not in ("auto", "percentiles", *CT_WINDOWS):
        known = ", ".join(("auto", "percentiles", *CT_WINDOWS))
        msg = f"Unknown window {name!r}. Choose one of {known}, or two numbers such as -160,240."
        raise SettingsError(msg)
    if case.is_colour or (wanted == "auto" and case.kind == "pictures" and case.is_byte):
        return None
    if wanted in CT_WINDOWS:
        return Window(*CT_WINDOWS[wanted])
    low, high = case.intensity_range()
    if wanted == "auto" and _is_hounsfield(case.modality, low, high):
        low, high = max(low, _CT_RANGE[0]), min(high, _CT_RANGE[1])
    return Window(low, high) if low < high else Window(low, low + max(1.0, abs(low) * 1e-3))


def opening_window(case: Slices, chosen: str = "auto") -> str:
    """Return the name of the initial window of a case: soft tissue for CT, "auto" otherwise.

    Args:
        case: the case.
        chosen: the window of the previous case, kept if it means the same in this one.
    """
    if case.is_colour:
        return "auto"
    if is_ct(case):
        return chosen if chosen in CT_WINDOWS else "soft tissue"
    return chosen if chosen == "percentiles" else "auto"


def is_ct(case: Slices) -> bool:
    """Return whether a case is a CT: by its file, or by its values where that does not say."""
    if case.is_colour:
        return False
    return case.modality == "CT" or (case.modality is None and _is_hounsfield(None, *case.intensity_range()))


def choose_scale(case: Slices, window: str, scaling: str) -> Scale:
    """Return the scaling of a case to 0..1 for the encoder.

    Args:
        case: the case.
        window: a name as for `choose_window`.
        scaling: "window" for one window for all slices, "slice" for each slice on its own (`SliceRange`), clipped to
            the window unless that is "auto".

    Raises:
        SettingsError: unknown window.
    """
    if scaling != "slice":
        return choose_window(case, window)
    return SliceRange(None if window.strip().lower() == "auto" else choose_window(case, window))


def choose_scales(case: Slices, window: str, scaling: str) -> list[Scale]:
    """Return the scaling of each sequence of a case, see `choose_scale`.

    The window is that of the first sequence. For the others, too, it is taken where it means the same: "auto" and
    "percentiles" for all of them, a CT preset for those that are CT; otherwise they have "auto".

    Raises:
        SettingsError: unknown window.
    """
    name = window.strip().lower()
    first, *others = case.sequences.values()
    scales = [choose_scale(first, window, scaling)]
    for sequence in others:
        means_the_same = name == "percentiles" or (name in CT_WINDOWS and is_ct(sequence))
        scales.append(choose_scale(sequence, window if means_the_same else "auto", scaling))
    return scales


def _is_hounsfield(modality: str | None, low: float, high: float) -> bool:
    """Return whether values are Hounsfield units: the modality is CT, or they range from air to tissue."""
    if modality is not None:
        return modality == "CT" and low < _CT_RANGE[1] and high > _CT_RANGE[0]
    return -3100.0 <= low <= -700.0 and 0.0 < high < 4100.0


def _numbers(text: str) -> Window:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        msg = f"A window is two numbers such as -160,240, not {text!r}."
        raise SettingsError(msg) from None
    return Window(low, high)


def to_unit(image: NDArray[Any], window: Scale) -> NDArray[np.float32]:
    """Return a slice scaled to 0..1.

    Args:
        image: (H, W) or (H, W, 3), from `Case.slice`.
        window: the scaling of grey values; None divides by 255. Colour is divided by 255 too, except by `SliceRange`.

    Returns:
        (H, W) or (H, W, 3) float32.
    """
    if image.ndim == 3 and not isinstance(window, SliceRange):
        return image.astype(np.float32) / np.float32(255)
    return (window or Window(0.0, 255.0)).apply(image)


def to_unit_rgb(image: NDArray[Any], window: Scale) -> NDArray[np.float32]:
    """Return a slice in the input format of encoders; as `to_unit`, but (3, H, W): grey is repeated three times."""
    unit = to_unit(image, window)
    if unit.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(unit, 2, 0))
    return np.repeat(unit[np.newaxis], 3, axis=0)
