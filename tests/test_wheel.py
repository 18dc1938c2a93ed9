"""What people install: the wheel holds the program and nothing else, and the sdist builds it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from npe2 import PluginManifest
from setuptools.config.setupcfg import read_configuration

from tests.conftest import REPOSITORY

LARGEST = 2**20  # bytes
SOURCES = ("src", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "tests", "benchmarks", "docs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("build") is None, reason="`build` is not installed; it comes with the extra dev"
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it as `python -m build` does."""
    project = tmp_path_factory.mktemp("project")
    # In a copy: a build leaves traces, and another one may be going on.
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, project / name, ignore=unwanted)
        else:
            shutil.copy(source, project / name)
    # With the setuptools that are here: no test reaches the network.
    command = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path, names: list[str]) -> Message:
    (name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(name))


def test_the_wheel_is_small(wheel: Path):
    assert wheel.stat().st_size < LARGEST


def test_the_wheel_holds_every_module_and_nothing_else(names: list[str]):
    package = REPOSITORY / "src"
    kept = [path for path in (package / "napari_dinoaugseg").rglob("*") if path.suffix in (".py", ".yaml", ".typed")]
    program = {name for name in names if ".dist-info/" not in name}
    assert program == {path.relative_to(package).as_posix() for path in kept}
    assert {"napari_dinoaugseg/napari.yaml", "napari_dinoaugseg/py.typed"} <= program


def test_the_wheel_tells_napari_and_the_shell_what_is_in_it(wheel: Path, names: list[str], tmp_path: Path):
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    told = (tmp_path / entry_points).read_text(encoding="utf-8")
    assert "dinoaugseg = napari_dinoaugseg.cli:main" in told
    assert "napari-dinoaugseg = napari_dinoaugseg:napari.yaml" in told
    assert PluginManifest.from_file(tmp_path / "napari_dinoaugseg" / "napari.yaml").name == "napari-dinoaugseg"


def test_the_metadata_is_what_the_napari_hub_shows(metadata: Message):
    assert metadata["Name"] == "napari-dinoaugseg"
    assert "Framework :: napari" in (metadata.get_all("Classifier") or [])
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    extras = read_configuration(REPOSITORY / "setup.cfg")["options"]["extras_require"]
    assert set(metadata.get_all("Provides-Extra") or []) == set(extras)


def test_the_sdist_holds_what_builds_the_wheel(built: Path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "src/napari_dinoaugseg/napari.yaml"} <= files
    assert not [name for name in files if name.startswith(("tests/", "benchmarks/", "docs/"))]
    assert path.stat().st_size < LARGEST
