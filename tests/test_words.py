"""Each hint has a sentence of the command and one of the panel; the rooms below name neither options nor buttons."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import napari_dinoaugseg
from napari_dinoaugseg.cli import words as command
from napari_dinoaugseg.errors import CaseError, Hint, LabelError, Message, SeveralVolumesError, one_line
from napari_dinoaugseg.gui import words as panel

SOURCE = Path(napari_dinoaugseg.__file__).parent
ROOMS = ("case", "model", "learning", "session", "cluster", "pacs")
GOLDEN = Path(__file__).parent / "golden" / "words.txt"
OPTION = re.compile(r"--[a-z]")
# Buttons and places of the panel, which the command does not have.
BUTTON = re.compile(
    r"\b(Press|Case section|panel|Preferences|Save model…|Apply a saved model…|right-click)|\bTrain begins"
)

# Facts as they come with each hint, for the sentences that name them.
FACTS = {
    "last": 4,
    "other": "stored",
    "encoder": "dinov3-convnext-tiny",
    "megabytes": 111,
    "licence": "DINOv3 License",
    "url": "https://example.org/licence",
    "file": "model.safetensors",
    "source": "https://huggingface.co/timm/convnext_tiny",
    "install": 'pip install "napari-dinoaugseg[offline]"',
    "variable": "DINOAUGSEG_OFFLINE",
    "most": 2,
    "case": "patient_3",
}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((SOURCE / room).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def spoken(tree: ast.Module) -> Iterator[ast.Constant]:
    """String literals that are no docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_every_hint_has_a_sentence_of_the_command_and_one_of_the_panel() -> None:
    for remedies in (command.REMEDIES, panel.REMEDIES):
        assert set(remedies) == set(Hint)
        for sentence in remedies.values():
            assert re.fullmatch(r"\S.*\S[.]", sentence.format(**FACTS))


def test_the_command_names_no_button_and_the_panel_no_option() -> None:
    for hint in Hint:
        assert not BUTTON.search(command.REMEDIES[hint]), hint
        assert not OPTION.search(panel.REMEDIES[hint]), hint


def test_no_message_below_command_and_panel_names_an_option_or_a_button() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r}"
        for path, tree in trees()
        for node in spoken(tree)
        if OPTION.search(node.value) or BUTTON.search(node.value)
    ]
    assert not found


def test_no_message_sends_to_a_page_that_only_the_source_tree_has() -> None:
    every = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(SOURCE.rglob("*.py")))
    found = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r}"
        for path, tree in every
        for node in spoken(tree)
        if re.search(r"\bdocs/|\.md\b", node.value)
    ]
    assert not found


def test_a_hint_comes_with_the_facts_that_its_sentences_name() -> None:
    """Where it is raised; `**facts` are not seen into."""
    used = set()
    for path, tree in trees():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            given = {keyword.arg for keyword in call.keywords}
            hints = [
                value.attr
                for value in [*call.args, *(keyword.value for keyword in call.keywords)]
                if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "Hint"
            ]
            used.update(hints)
            for hint in hints:
                wanted = {
                    name
                    for remedies in (command.REMEDIES, panel.REMEDIES)
                    for name in re.findall(r"{(\w+)}", remedies[Hint[hint]])
                }
                # The helper of the hub adds what all its errors share.
                assert wanted <= given or None in given or path.name == "hub.py", f"{path.name}:{call.lineno}: {hint}"
    # Errors of several volumes, series and frames give theirs themselves, the hub's helper has a default.
    assert {hint.name for hint in Hint} - used <= {"CHOOSE_SERIES", "CHOOSE_FRAMES", "WEIGHTS_BY_HAND"}


def test_the_words_of_all_hints_are_as_in_the_golden_file() -> None:
    lines = []
    for hint in Hint:
        message = Message("scan.nii.gz: something is wrong.", hint, **FACTS)
        sentences = command.notice_text(message), panel.in_words(message)
        lines += [
            f"[{hint}]",
            *(sentence.removeprefix("scan.nii.gz: something is wrong. ") for sentence in sentences),
            "",
        ]
    assert "\n".join(lines) == GOLDEN.read_text(encoding="utf-8")


def test_a_message_keeps_its_hint_on_its_way() -> None:
    """Through another error, another wording, one line, and to another process."""
    error = CaseError("scan.nii: there is no\ncomponent 7.", Hint.CHOOSE_VOLUME, last=4)
    for kept in (
        LabelError(error.message).message,
        error.message.reworded("model: there is no component 7."),
        one_line(error.message),
        pickle.loads(pickle.dumps(error)).message,
        pickle.loads(pickle.dumps(error.message)),
    ):
        assert (kept.hint, kept.facts) == (Hint.CHOOSE_VOLUME, {"last": 4})
    assert str(one_line(error.message)) == "scan.nii: there is no component 7."
    several = pickle.loads(pickle.dumps(SeveralVolumesError("scan.nii: it holds 5 volumes.", 5)))
    assert (several.count, several.hint, several.message.facts) == (5, Hint.CHOOSE_VOLUME, {"last": 4})


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("255 is taken as unknown", "255 is taken as unknown. --ignore none makes it a class."),
        ("255 is taken as unknown.", "255 is taken as unknown. --ignore none makes it a class."),
        ("Is it {a class}?", "Is it {a class}? --ignore none makes it a class."),
    ],
)
def test_a_remedy_follows_the_message_as_a_sentence(message: str, shown: str) -> None:
    assert command.notice_text(Message(message, Hint.WHITE_AS_CLASS)) == shown
    assert command.notice_text(message) == message


def test_an_error_has_two_lines_at_most() -> None:
    assert command.error_text(CaseError("a: b.", Hint.CHOOSE_SERIES)).splitlines() == [
        "a: b.",
        command.REMEDIES[Hint.CHOOSE_SERIES],
    ]
    assert len(command.error_text(CaseError("a: b.\nTry c.", Hint.NAME_WEIGHTS)).splitlines()) == 2
    assert command.error_text(CaseError("a: b. Export it again.")) == "a: b. Export it again."


def test_a_name_in_a_strangers_file_sends_no_escape_code_to_the_terminal():
    error = LabelError(
        "masks.json: its pictures (\x1b[2J, \x7f, \udce9, caf\u00e9\u202f1) are none of images", Hint.CHOOSE_SERIES
    )
    assert str(error) == "masks.json: its pictures (?[2J, ?, ?, caf\u00e9\u202f1) are none of images"
    assert error.message.in_window == str(error)
    found = Message("", Hint.CHOOSE_VOLUME, last="\x1b7").reworded("two\nlines", "two\x07")
    assert (found, found.in_window, found.facts) == ("two\nlines", "two?", {"last": "?7"})
