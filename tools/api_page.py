"""Writes docs/api.md: the public names of the engine, with signatures and docstrings, one page.

    make docs               # or: python tools/api_page.py

The sources are read (by griffe), not imported. `SECTIONS` says what is public: what a user of the engine needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "api.md"
PACKAGE = "napari_dinoaugseg"

HEAD = """# API

What a user of the engine needs, made from the docstrings by `make docs`; [python.md](python.md) shows it in use. Arrays
are in display order, (z, y, x) or (slice, row, column); distances are in millimetres. Whatever a person can cause is a
`DinoAugSegError` and says what to do next.
"""

# Heading, one sentence, and the modules with their public names, in the order in which one meets them.
SECTIONS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    (
        "Case: images in, masks out",
        "Needs no PyTorch.",
        {
            "case.opening": ("open_case",),
            "case.array": ("case_from_array", "ArrayCase"),
            "case.case": ("Case",),
            "case.volume": ("VolumeCase",),
            "case.pictures": ("PictureCase",),
            "case.grid": ("Plane", "Grid", "align"),
            "case.intensity": ("Window", "CT_WINDOWS", "choose_window", "to_unit_rgb"),
            "case.labels": ("read_mask_volume",),
            "case.masks": ("MaskFolder", "read_mask_folder"),
            "case.segments": ("Segment",),
            "case.sample": ("brain_sample", "sample_case"),
        },
    ),
    (
        "Session: label, train, predict, export",
        "Start here. Neither PyTorch nor any widget appears in these signatures.",
        {
            "session.session": ("Session",),
            "session.labels": ("LabelBook", "Status", "UNKNOWN", "SliceLabels"),
            "session.classes": ("LabelClass",),
            "session.snapshot": ("Round", "Snapshot"),
            "session.export": ("export_masks",),
            "session.report": ("make_report", "write_report", "class_volumes"),
            "session.evaluation": ("evaluate", "Evaluation", "ClassResult"),
            "session.fill": ("fill_between",),
            "session.simulation": ("simulate", "SimulatedRound"),
            "session.places": ("default_sessions_folder", "saved_sessions", "SavedSession", "new_session_folder"),
            "session.store": ("SessionStore",),
        },
    ),
    (
        "Learning: from a few slices",
        "What a session uses. `settings`, `events`, `prediction` and `suggestion` need no PyTorch.",
        {
            "learning.settings": ("Settings", "PRESETS"),
            "learning.events": ("Progress", "Notice", "Cancel"),
            "learning.prediction": ("Prediction",),
            "learning.suggestion": ("Suggestion", "suggest"),
            "learning.metrics": ("dice", "score", "Score"),
            "learning.device": ("choose_device",),
            "learning.cache": ("FeatureCache",),
            "learning.context": ("neighbour_distance", "likeness"),
            "learning.features": ("FeatureStore",),
            "learning.views": ("View", "views_for"),
            "learning.loss": ("segmentation_loss", "balanced_weights", "UNKNOWN_TARGET"),
            "learning.trainer": ("Example", "new_decoder", "fit"),
            "learning.predictor": ("predict",),
        },
    ),
    (
        "Model: the network of the paper",
        "Plain PyTorch modules, and their files.",
        {
            "model.specs": ("EncoderSpec", "ENCODERS"),
            "model.encoder": ("Encoder", "load_encoder", "resolve_encoder", "weights_state"),
            "model.wavelet": ("WTAug",),
            "model.fusion": ("CGFuse",),
            "model.network": ("Decoder",),
            "model.checkpoint": ("Checkpoint", "save_checkpoint", "load_checkpoint", "build_decoder"),
        },
    ),
    (
        "Errors",
        "Their messages are one or two lines for the person at the screen.",
        {
            "errors": (
                "DinoAugSegError",
                "CaseError",
                "SeriesInfo",
                "SeveralSeriesError",
                "SeveralVolumesError",
                "LabelError",
                "WeightsError",
                "CheckpointError",
                "OutputError",
                "DeviceError",
                "SettingsError",
                "TrainingError",
                "SessionError",
            )
        },
    ),
)

_LINE = 120  # characters of a signature; a longer one gets a line for each argument
_TITLES = {
    "parameters": "Arguments",
    "attributes": "Attributes",
    "returns": "Returns",
    "yields": "Yields",
    "raises": "Raises",
}


def api_page() -> str:
    """The whole page as Markdown."""
    package = griffe.load(
        PACKAGE,
        search_paths=[REPOSITORY / "src"],
        docstring_parser="google",
        docstring_options={"returns_named_value": False, "returns_multiple_items": False, "warnings": False},
        allow_inspection=False,
    )
    parts = [HEAD]
    for title, sentence, modules in SECTIONS:
        parts += [f"## {title}", sentence]
        for module, names in modules.items():
            room = package[module.partition(".")[0]]
            for name in names:
                exported = not room.is_alias and name in (room.exports or ())
                parts += _entry(package[f"{module}.{name}"], room.path if exported else f"{PACKAGE}.{module}")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _entry(item: Any, module: str) -> Iterator[str]:
    """One public name: a heading, where it is imported from, its signature and its docstring."""
    yield f"### {item.name}"
    yield f"`from {module} import {item.name}`"
    if item.is_attribute:
        yield _block(f"{item.name}: {item.annotation}" if item.annotation else f"{item.name} = {item.value}")
        yield from _docstring(item)
        return
    yield _block(_class(item) if item.is_class else _signature(item))
    yield from _docstring(item)
    if item.is_class:
        yield from _members(item)


def _members(item: Any) -> Iterator[str]:
    """What a class has beside what its docstring and its bases tell: fields, properties and methods of its own."""
    inherited = {name for base in item.resolved_bases for name in base.members}
    attributes = [section.value for section in _sections(item) if section.kind.value == "attributes"]
    told = inherited | {entry.name for section in attributes for entry in section}
    plain = [member for name, member in item.members.items() if _is_field(member) and name not in told]
    if plain:
        yield "\n".join(_field(member) for member in plain)
    for member in item.members.values():
        if member.is_alias or member.name.startswith("_") or not (member.is_function or _is_property(member)):
            continue
        if member.name in inherited:
            continue
        yield f"#### {item.name}.{member.name}"
        yield _block(_property(member) if _is_property(member) else _signature(member))
        yield from _docstring(member)


def _is_field(member: Any) -> bool:
    if member.is_alias or not member.is_attribute or member.name.startswith("_") or member.name == "model_config":
        return False
    # What a constructor sets is the docstring's to tell.
    return not _is_property(member) and "class-attribute" in member.labels


def _is_property(member: Any) -> bool:
    return bool({"property", "cached"} & set(member.labels))


def _field(member: Any) -> str:
    """A field with its type, its default, and what pydantic or its docstring says of it."""
    value = "" if member.value is None else str(member.value)
    text = " ".join(member.docstring.value.split()) if member.docstring else ""
    if value.startswith("Field("):
        described = re.search(r"description='(.*?)'[,)]|description=\"(.*?)\"[,)]", value)
        text = next((group for group in described.groups() if group), "") if described else text
        bounds = re.findall(r"\b(ge|gt|le|lt)=([^,)]+)", value)
        signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        limits = ", ".join(f"{signs[word]} {number}" for word, number in bounds)
        text = "; ".join(part for part in (text, limits) if part)
        value = value.removeprefix("Field(").split(",")[0]
    default = f" = {value}" if value else ""
    annotation = f": {member.annotation}" if member.annotation else ""
    return f"- `{member.name}{annotation}{default}`" + (f": {_inline(text)}" if text else "")


def _class(item: Any) -> str:
    bases = ", ".join(str(base) for base in item.bases)
    made = item.members.get("__init__")
    head = f"class {item.name}({bases}):" if bases else f"class {item.name}:"
    return f"{head} ..." if made is None or made.is_alias else f"{head}\n    {_signature(made, indent=4)}"


def _property(member: Any) -> str:
    return f"@property\ndef {member.name}(self) -> {member.annotation}: ..."


def _signature(function: Any, indent: int = 0) -> str:
    """A stub: `def name(arguments) -> result: ...`."""
    arguments, star = [], False
    for parameter in function.parameters:
        kind = parameter.kind.value
        if kind == "keyword-only" and not star:
            arguments.append("*")
            star = True
        star = star or kind == "variadic positional"
        prefix = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
        annotation = f": {parameter.annotation}" if parameter.annotation else ""
        default = "" if parameter.default is None or prefix else f" = {parameter.default}"
        arguments.append(f"{prefix}{parameter.name}{annotation}{default if annotation else default.replace(' ', '')}")
    returns = f" -> {function.returns}" if function.returns else ""
    decorators = [f"@{word}" for word in ("classmethod", "staticmethod") if word in function.labels]
    line = f"def {function.name}({', '.join(arguments)}){returns}: ..."
    if len(line) + indent > _LINE:
        inner = "".join(f"{' ' * (indent + 4)}{argument},\n" for argument in arguments)
        line = f"def {function.name}(\n{inner}{' ' * indent}){returns}: ..."
    return "\n".join([*decorators, line])


def _block(code: str) -> str:
    # Quotes as the formatter of the sources writes them: it also looks at blocks of Markdown.
    quoted = re.sub("'([^'\"]*)'", r'"\1"', code)
    return f"```python\n{quoted}\n```"


def _sections(item: Any) -> list[Any]:
    return item.docstring.parsed if item.docstring else []


def _docstring(item: Any) -> Iterator[str]:
    """The docstring as Markdown: its text, and a list for each of its sections."""
    for section in _sections(item):
        kind = section.kind.value
        if kind == "text":
            yield _inline(section.value)
        elif kind == "admonition":  # a section that Google's style does not know
            yield f"**{section.title}:** {_inline(section.value.description)}"
        elif kind in ("returns", "yields"):
            # A result without a type in front is taken for one line; the signature tells the type.
            yield f"**{_TITLES[kind]}:** {_inline(' '.join(entry.description for entry in section.value))}"
        else:
            lines = (f"- `{_name(entry)}`: {_inline(entry.description)}" for entry in section.value)
            yield f"**{_TITLES[kind]}**\n\n" + "\n".join(lines)


def _name(entry: Any) -> str:
    """The name of an argument or attribute; the class of an error."""
    return str(getattr(entry, "name", None) or entry.annotation)


def _inline(text: str) -> str:
    """Text of a docstring with its literals and references as Markdown writes them; paragraphs stay."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    PAGE.write_text(api_page(), encoding="utf-8")
    print(PAGE.relative_to(REPOSITORY))  # noqa: T201 - this is a script
