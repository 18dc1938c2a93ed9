"""What the parts of the panel share: kinds of changes, messages to the person, errors as messages.

The parts stand on this module; it stands on none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from functools import wraps
from typing import Any, Literal, ParamSpec, Protocol


class Change(Flag):
    """What a change is about. Several are one value, `Change.LABELS | Change.SLICE`."""

    SESSION = auto()  # another case, or none
    LABELS = auto()  # manual or accepted labels
    PREDICTIONS = auto()
    CLASSES = auto()  # their number, names or colours
    SELECTION = auto()  # the class that the brush paints
    SLICE = auto()  # the slice in view
    TOOL = auto()  # another tool of napari, or another layer, is in use
    VIEW = auto()  # axes were rolled, 2-D and 3-D switched, or painting became possible or impossible
    SETTINGS = auto()  # settings, device, scheduler, weights, scribbles, or the encoder that is known
    WINDOW = auto()  # the intensity window of the view
    OFFER = auto()  # an image came into the viewer, or left, that could be annotated
    LAYERS = auto()  # a layer of the case was removed or made again
    WORK = auto()  # work in the background began or ended
    SAVING = auto()  # whether the labels are on disk
    SAVED_SESSIONS = auto()  # which saved sessions can be resumed


Kind = Literal["done", "notice", "slice", "error", "clear"]


@dataclass(frozen=True)
class Message:
    """One sentence for the person.

    Attributes:
        text: the sentence; empty for "clear".
        kind: "done" = the result of an action; "notice" = something to know, shown together with other notices;
            "slice" = about the slice in view, gone when another one is shown; "error" = stays until something else is
            done; "clear" = what was shown no longer matters.
    """

    text: str
    kind: Kind = "done"


class Follower(Protocol):
    """A part that follows changes at once."""

    def follow(self, what: Change) -> None:
        """Something changed."""


_P = ParamSpec("_P")


def guarded(method: Callable[_P, object]) -> Callable[_P, bool]:
    """Make an error of a method a message to the person; the method then returns whether it succeeded.

    For what buttons and keys are connected to, which must never end in a traceback. The object holds the controller as
    `controller`.
    """

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> bool:
        part: Any = args[0]
        return bool(part.controller.guarded(method, *args, **kwargs))

    return call
