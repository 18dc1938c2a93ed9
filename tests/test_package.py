"""The package as a whole: what importing it costs, which part may import which, and what napari is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManifest
from setuptools.config.setupcfg import read_configuration

import napari_dinoaugseg

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src" / "napari_dinoaugseg"
LONGEST_FILE = 400


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_importing_the_package_loads_nothing_heavy():
    done = run_python(
        "import sys, napari_dinoaugseg\nprint(*sorted({'torch', 'timm', 'napari', 'qtpy', 'numpy'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_import_contracts_hold():
    done = run_python("from importlinter.cli import lint_imports\nraise SystemExit(lint_imports(no_cache=True))")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_files_stay_short(file: Path):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{file} has {lines} lines: split it"


def architecture() -> dict[str, str]:
    """The sections of ARCHITECTURE.md by the first word of their heading, in small letters."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    sections = [section.partition("\n") for section in text.split("\n## ")[1:]]
    return {heading.partition(":")[0].lower(): body for heading, _, body in sections}


@pytest.mark.parametrize(
    "file",
    sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"),
    ids=lambda file: file.relative_to(PACKAGE).as_posix(),
)
def test_the_architecture_names_every_module_in_its_room(file: Path):
    room = file.parent.name if file.parent != PACKAGE else "the house"
    assert f"`{file.name}`" in architecture()[room], f"say in ARCHITECTURE.md, under '{room}', what {file.name} is for"


def test_the_architecture_names_no_module_that_is_gone():
    for room, text in architecture().items():
        folder = PACKAGE if room == "the house" else PACKAGE / room
        named = set(re.findall(r"`(\w+\.py)`", text)) if folder.is_dir() else set()
        assert not [name for name in named if not (folder / name).is_file()]


def test_metadata_has_the_version_of_the_package():
    metadata = read_configuration(REPOSITORY / "setup.cfg")["metadata"]
    assert metadata["version"] == napari_dinoaugseg.__version__


def test_manifest_is_valid_and_its_commands_exist():
    manifest = PluginManifest.from_file(PACKAGE / "napari.yaml")
    assert manifest.name == "napari-dinoaugseg"
    manifest.validate_imports()


def test_napari_finds_the_manifest_of_the_installed_package():
    manifest = PluginManifest.from_distribution("napari-dinoaugseg")
    assert manifest.display_name == "DINO-AugSeg"
    assert manifest.package_version == napari_dinoaugseg.__version__
