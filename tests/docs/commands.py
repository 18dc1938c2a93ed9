"""Commands of the documentation: ours are run, others are checked as far as that goes without doing what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import typer
from setuptools.config.setupcfg import read_configuration

from napari_dinoaugseg.cli.app import app
from tests.conftest import REPOSITORY

Words = list[str]
OURS = "dinoaugseg"
PLUGIN = "napari-dinoaugseg"
_PYTHON = ("python", "python3")
# Not ours and not installed with us: nothing is known of their options.
_SYSTEM = {"cd": 0, "chmod": 0, "openssl": ("req", "x509"), "git": ("clone", "commit", "tag", "push", "switch", "pull")}
_READ_BY_DASK = {"DASK_CONFIG"}
_ASSIGNMENT = re.compile(r"([A-Z_][A-Z0-9_]*)=(.*)", re.DOTALL)
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
PACS = "https://pacs.example.org/dicom-web"
stand_ins: dict[str, str] = {}
"""What takes the place of an address of the documentation while its commands run."""


class DocumentationError(AssertionError):
    """A command that would not work as it is written."""


def commands_in(code: str) -> list[str]:
    """The commands of a block, one a line; a backslash at the end goes on in the next line."""
    lines = [line.strip() for line in code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_command(text: str) -> bool:
    """Whether a piece of text begins with a program that is checked here."""
    words = text.split()
    return len(words) > 1 and _program(words[0]) in (OURS, "make", "pip", "uvx", "napari", *_PYTHON, *_SYSTEM)


def check(command: str, *, run: bool) -> None:
    """Check a command, or run it where it is one of ours that needs no window.

    Raises:
        DocumentationError: of no known kind, or it names what is not there.
    """
    words = shlex.split(command, comments=True)
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        _require(_is_variable(found[1]), f"nothing reads {found[1]}")
        words = words[1:]
    _require(bool(words), f"no command in {command!r}")
    program, arguments = _program(words[0]), words[1:]
    if program == OURS:
        _check_ours(arguments)
        if run and not _opens_a_window(arguments) and "--scheduler" not in arguments:
            app([stand_ins.get(word, word) for word in arguments], standalone_mode=False)
    elif program.startswith((".ci/", "tools/")):
        _require((REPOSITORY / program).is_file(), f"there is no {program}")
    elif program in _SYSTEM:
        known = _SYSTEM[program]
        _require(not isinstance(known, tuple) or arguments[0] in known, f"{program} {arguments[0]} is not known here")
    else:
        checker = _CHECKERS.get(program)
        _require(checker is not None or _installed(program) is not None, f"{program} is of no known kind")
        (checker or (lambda rest: _check_installed(program, rest)))(arguments)


def options_of_ours() -> set[str]:
    """Every option of the command, of whichever subcommand."""
    return {name for _, options in _our_commands() for name in options} | {"--help", "--version"}


def options_of_dask() -> str:
    """What dask says of the options of its scheduler and workers."""
    return _help_of_program("dask", "scheduler") + _help_of_program("dask", "worker")


def check_dask_configuration(text: str) -> None:
    """Check that dask knows each key. Raises DocumentationError."""
    import dask.config
    import distributed  # noqa: F401 - brings its defaults
    import yaml

    for key in _keys(yaml.safe_load(text)):
        _require(dask.config.get(key, default=dask) is not dask, f"dask has no {key}")


def _keys(values: object, prefix: str = "") -> Words:
    """The dotted names of all leaves."""
    if not isinstance(values, dict):
        return [prefix]
    return [key for name, value in values.items() for key in _keys(value, f"{prefix}.{name}" if prefix else name)]


# --- kinds of commands ------------------------------------------------------------------------------------------------


def _check_ours(arguments: Words) -> None:
    if not arguments or arguments[0].startswith("-"):
        _require(set(arguments) <= {"--help", "-h", "--version"}, f"{OURS} has no {arguments}")
        return
    known = dict(_our_commands())
    if " ".join(arguments[:2]) in known:  # a command of a group
        arguments = [" ".join(arguments[:2]), *arguments[2:]]
    _require(arguments[0] in known, f"{OURS} has no command {arguments[0]}")
    missing = [word for word in _options(arguments) if word not in known[arguments[0]] | {"--help"}]
    _require(not missing, f"{OURS} {arguments[0]} has no {missing}")


def _check_make(arguments: Words) -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", text, re.MULTILINE))
    for word in arguments:
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned is None:
            _require(word in targets or bool(_PLACEHOLDER.fullmatch(word)), f"make has no {word}")
            continue
        _require(f"$({assigned[1]})" in text or _is_variable(assigned[1]), f"nothing reads {assigned[1]}")
        for part in shlex.split(assigned[2]) if assigned[1] == "ARGS" else []:
            _require(not part.startswith("tests/") or (REPOSITORY / part).exists(), f"there is no {part}")


def _check_pip(arguments: Words) -> None:
    _require(arguments[0] == "install", f"pip {arguments[0]} is not known here")
    extras = read_configuration(REPOSITORY / "setup.cfg")["options"]["extras_require"]
    named = [word for word in arguments[1:] if not word.startswith("-")]
    _require(bool(named), "pip installs nothing")
    for word in named:
        found = re.fullmatch(rf"(?:{PLUGIN}|\.)(?:\[([\w,]+)\])?", word)
        _require(found is not None or word in _development_tools(extras["dev"]), f"{word} is not this package")
        wanted = found[1].split(",") if found is not None and found[1] else []
        _require(set(wanted) <= set(extras), f"there is no extra in {word}")


def _check_uvx(arguments: Words) -> None:
    """``uvx --python VERSION --from ".[extras]" dinoaugseg …``: the package is that of this clone."""
    if arguments[:1] == ["--python"]:
        arguments = arguments[2:]
    _require(arguments[:1] == ["--from"] and len(arguments) > 2, f"uvx {arguments} runs nothing of ours")
    _check_pip(["install", arguments[1]])
    _require(arguments[2] == OURS, f"{arguments[2]} is no command of this package")
    _check_ours(arguments[3:])


def _check_python(arguments: Words) -> None:
    if arguments[0] != "-m":
        _require((REPOSITORY / arguments[0]).is_file(), f"there is no {arguments[0]}")
        return
    module, rest = arguments[1], arguments[2:]
    if module == "pip":
        _check_pip(rest)
    elif module.startswith("benchmarks."):
        name = module.removeprefix("benchmarks.")
        if not _PLACEHOLDER.fullmatch(name):
            _require(importlib.util.find_spec(module) is not None, f"there is no {module}")
            missing = [word for word in _options(rest) if word not in _help_of_module(module)]
            _require(not missing, f"{module} has no {missing}")
    else:
        _require(importlib.util.find_spec(module) is not None, f"there is no module {module}")


def _check_napari(arguments: Words) -> None:
    _check_installed("napari", arguments)
    if "-w" in arguments:
        _require(arguments[arguments.index("-w") + 1] == PLUGIN, f"{arguments} names another plugin")


def _check_installed(program: str, arguments: Words) -> None:
    """A program that is installed beside Python; its help lists its options."""
    subcommand = arguments[:1] if arguments and not arguments[0].startswith("-") else []
    text = _help_of_program(program, *subcommand)
    missing = [word for word in _options(arguments) if word not in text]
    _require(not missing, f"{program} has no {missing}")


_CHECKERS: dict[str, Callable[[Words], None]] = {
    "make": _check_make,
    "pip": _check_pip,
    "uvx": _check_uvx,
    "napari": _check_napari,
    **dict.fromkeys(_PYTHON, _check_python),
}

# --- what there is ----------------------------------------------------------------------------------------------------


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise DocumentationError(message)


def _program(word: str) -> str:
    """Without the folder of the environment: `.venv/bin/python` is python."""
    return re.sub(r"^\.venv/(bin|Scripts)/", "", word)


def _options(arguments: Words) -> Words:
    return [word.partition("=")[0] for word in arguments if word.startswith("-") and word != "-"]


def _opens_a_window(arguments: Words) -> bool:
    return arguments[:1] == ["demo"] and not {"--no-gui", "--json", "--out"} & set(arguments)


@cache
def _our_commands() -> tuple[tuple[str, frozenset[str]], ...]:
    group = typer.main.get_command(app)
    commands = [
        (f"{name} {inner}", command)
        for name, found in group.commands.items()  # type: ignore[attr-defined]
        for inner, command in getattr(found, "commands", {"": found}).items()
    ]
    return tuple(
        (name.strip(), frozenset(word for option in command.params for word in (*option.opts, *option.secondary_opts)))
        for name, command in commands
    )


@cache
def _is_variable(name: str) -> bool:
    """Whether something of ours, or dask, reads a variable."""
    if name in _READ_BY_DASK:
        return True
    scripts = [REPOSITORY / "Makefile", *(REPOSITORY / "tools").glob("*.sh")]
    modules = [path for folder in ("src", "tests") for path in (REPOSITORY / folder).rglob("*.py")]
    return any(name in path.read_text(encoding="utf-8") for path in scripts) or any(
        f'"{name}"' in path.read_text(encoding="utf-8") for path in modules
    )


def _development_tools(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ]", requirement)[0] for requirement in requirements}


@cache
def _help_of_module(module: str) -> str:
    """What ``python -m MODULE --help`` prints, without a process that would load PyTorch again."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Another test imported it as a module: its help is the same.
        warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
        shown: list[str] = []
        patch.setattr(sys, "argv", [module, "--help"])
        patch.setattr("argparse.ArgumentParser._print_message", lambda _, text, file=None: shown.append(text))
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code in (0, None)
    return "".join(shown)


def _installed(program: str) -> str | None:
    return shutil.which(program, path=str(Path(sys.executable).parent))


@cache
def _help_of_program(program: str, *subcommand: str) -> str:
    path = _installed(program)
    _require(path is not None, f"{program} is not installed with the extras of developers")
    done = subprocess.run(
        [str(path), *subcommand, "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr
