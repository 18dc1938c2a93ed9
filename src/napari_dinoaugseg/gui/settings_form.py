"""A form for the settings, made by magicgui from the settings object: names, ranges and help come from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from magicgui.widgets import Container, create_widget

from napari_dinoaugseg.learning.settings import Settings

SHOWN = {
    "input_size": "Input size (pixels)",
    "steps": "Training steps",
    "views": "Augmented views",
    "batch_size": "Slices per step",
    "learning_rate": "Learning rate",
    "augment_probability": "WT-Aug: how often",
    "augment_drop": "WT-Aug: share dropped",
    "precision": "Precision",
    "seed": "Seed",
}
"""What the form offers, in its words; the presets decide the rest."""


def settings_form(settings: Settings, changed: Callable[[str, Any], None]) -> Container[Any]:
    """A form of the settings in SHOWN.

    Args:
        settings: the values to begin with.
        changed: called with the name of a setting and its new value.
    """
    widgets = []
    for name, label in SHOWN.items():
        field = Settings.model_fields[name]
        widget: Any = create_widget(
            value=getattr(settings, name),
            annotation=field.annotation,
            name=name,
            label=label,
            options={"tooltip": field.description or "", **_range(name)},
        )
        widget.changed.connect(lambda value, name=name: changed(name, value))
        widgets.append(widget)
    return Container(widgets=widgets, labels=True)


def show_settings(form: Container[Any], settings: Settings) -> None:
    """Put other values into a form, without a word to anyone."""
    for name in SHOWN:
        widget: Any = form[name]
        with widget.changed.blocked():
            widget.value = getattr(settings, name)


def _range(name: str) -> dict[str, float]:
    """Limits and step of a number, from the settings object; nothing for a choice between names."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return {}
    options: dict[str, float] = {}
    whole = field.annotation is int or int in get_args(field.annotation)
    for bound in field.metadata:
        if isinstance(bound, Ge | Gt):
            options["min"] = bound.ge if isinstance(bound, Ge) else 0.0  # type: ignore[assignment]
        elif isinstance(bound, Le | Lt):
            options["max"] = bound.le if isinstance(bound, Le) else bound.lt  # type: ignore[assignment]
    options["step"] = 32 if name == "input_size" else 1 if whole else 0.0001 if name == "learning_rate" else 0.05
    return options
