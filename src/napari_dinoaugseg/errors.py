"""The errors that a person can meet.

Each message is one or two lines: what is wrong, in which file, and what to do next. The command line prints the message
and exits with code 1; the panel shows it. Anything that is not one of these is a bug of ours.
"""

from __future__ import annotations


class DinoAugSegError(Exception):
    """Base of every error that is meant for the person at the screen."""


class StudyError(DinoAugSegError):
    """An image cannot be opened: missing, damaged, not what its name says, or not one study."""


class LabelError(DinoAugSegError):
    """Labels do not fit the study, or are not labels."""


class WeightsError(DinoAugSegError):
    """Encoder weights are missing, damaged, or belong to another encoder."""


class CheckpointError(DinoAugSegError):
    """A saved model cannot be read or does not fit."""


class OutputError(DinoAugSegError):
    """A result cannot be written there."""


class DeviceError(DinoAugSegError):
    """The asked-for compute device is not there."""


class SettingsError(DinoAugSegError):
    """A setting is out of its range or contradicts another."""


class TrainingError(DinoAugSegError):
    """There is nothing to learn from, or learning cannot go on."""
