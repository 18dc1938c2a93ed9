"""What the parts of the panel share: kinds of changes, messages to the person, errors as messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from functools import wraps
from typing import Any, Literal, ParamSpec, Protocol


class Change(Flag):
    """What has changed; several kinds combine, as `Change.LABELS | Change.SLICE`."""

    SESSION = auto()  # another case, or none
    LABELS = auto()  # manual or accepted labels
    PREDICTIONS = auto()
    CLASSES = auto()  # their number, names or colours
    SELECTION = auto()  # the class that the brush paints
    SLICE = auto()  # the slice in view
    TOOL = auto()  # napari's tool or active layer
    VIEW = auto()  # axes were rolled, 2-D and 3-D switched, or painting became possible or impossible
    SETTINGS = auto()  # settings, device, scheduler, weights, scribbles, or which encoder is known
    WINDOW = auto()  # the intensity window of the view
    OFFER = auto()  # an image that could be annotated was added to the viewer or removed
    LAYERS = auto()  # a layer of the case was removed or restored
    WORK = auto()  # work in the background began or ended
    LIVE = auto()  # how far live learning is
    PROPOSAL = auto()  # what Smart scribble proposes, or asks for
    SAVING = auto()  # whether the labels are on disk
    SAVED_SESSIONS = auto()  # which saved sessions can be resumed
    MEASURES = auto()  # lengths and angles on slices, or the tool that takes them
    PROJECT = auto()  # the project, its cases or their order, or how far one of them is


Kind = Literal["done", "notice", "slice", "error", "clear"]


@dataclass(frozen=True)
class Message:
    """One sentence for the person.

    Attributes:
        text: the sentence; empty for "clear".
        kind: "done" = the result of an action; "notice" = information, shown together with other notices; "slice" =
            about the slice in view, hidden when another one is shown; "error" = shown until the next action; "clear" =
            hide the message shown so far.
    """

    text: str
    kind: Kind = "done"


class Follower(Protocol):
    """A part that is called immediately at each change."""

    def follow(self, what: Change) -> None:
        """React to a change."""


_P = ParamSpec("_P")


def guarded(method: Callable[_P, object]) -> Callable[_P, bool]:
    """Turn errors of a method into messages; the decorated method returns whether it succeeded.

    For methods that buttons and keys call, which must never end in a traceback. Their object has an attribute
    `controller`.
    """

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> bool:
        part: Any = args[0]
        return bool(part.controller.guarded(method, *args, **kwargs))

    return call
