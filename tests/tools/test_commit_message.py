from __future__ import annotations

import pytest

from tools.commit_message import problems


@pytest.mark.parametrize(
    "message",
    [
        "Refuse DICOM folders with a gap\n",
        "Speed up the reading of masks\n\nBecause it took a second.\n# Please enter the message\n",
        "# a comment first\nProcess slices in order",
        "X" * 72,
        "Merge branch 'a-name' into main\nand more",
        'Revert "Show coronal slices head up"\n\nThis reverts commit 0.',
        "Fix it\n# ------------------------ >8 ------------------------\ndiff",
    ],
)
def test_good_messages_pass(message: str):
    assert problems(message) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("X" * 73, "73 characters"),
        ("Refuse folders.", "period"),
        ("refuse folders", "capital letter"),
        ("fix: refuse folders", "prefix"),
        ("Refused folders", "not an imperative"),
        ("Refuses folders", "not an imperative"),
        ("Refusing folders", "not an imperative"),
        ("Refuse folders\nwith a gap", "not blank"),
    ],
)
def test_each_fault_is_named(message: str, problem: str):
    (found,) = problems(message)
    assert problem in found
