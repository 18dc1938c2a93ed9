"""The package as a whole: what importing it costs, which part may import which, and what napari is told."""

from __future__ import annotations

import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
import yaml
from npe2 import PluginManifest
from setuptools.config.setupcfg import read_configuration

import napari_dinoaugseg

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src" / "napari_dinoaugseg"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_importing_the_package_loads_nothing_heavy():
    done = run_python(
        "import sys, napari_dinoaugseg\nprint(*sorted({'torch', 'timm', 'napari', 'qtpy', 'numpy'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_public_names_are_imported_when_they_are_used():
    from napari_dinoaugseg.case import open_case
    from napari_dinoaugseg.learning.settings import Settings
    from napari_dinoaugseg.session.labels import LabelBook
    from napari_dinoaugseg.session.session import Session

    own = {"open_case": open_case, "Session": Session, "Settings": Settings, "LabelBook": LabelBook}
    assert {name: getattr(napari_dinoaugseg, name) for name in napari_dinoaugseg.__all__} == own
    assert set(own) < set(dir(napari_dinoaugseg))
    with pytest.raises(AttributeError, match="has no attribute 'open_study'"):
        napari_dinoaugseg.open_study  # noqa: B018


def test_settings_and_opening_a_case_load_neither_torch_nor_napari():
    done = run_python(
        "import sys; from napari_dinoaugseg import open_case, Settings\n"
        "print(*sorted({'torch', 'napari', 'qtpy'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_import_contracts_hold():
    done = run_python("from importlinter.cli import lint_imports\nraise SystemExit(lint_imports(no_cache=True))")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_module_imports_itself_through_others():
    """Imports inside functions count everywhere; below the panel, those for type checkers count as well."""
    for typing in (False, True):
        graph = grimp.build_graph("napari_dinoaugseg", exclude_type_checking_imports=not typing, cache_dir=None)
        modules = {name for name in graph.modules if not (typing and name.startswith("napari_dinoaugseg.gui"))}
        assert len(modules) > 50
        try:
            TopologicalSorter(
                {name: graph.find_modules_directly_imported_by(name) & modules for name in modules}
            ).prepare()
        except CycleError as error:
            pytest.fail(f"modules that import each other in a circle: {' -> '.join(error.args[1])}")


def test_metadata_citation_and_changelog_have_the_version_of_the_package():
    metadata = read_configuration(REPOSITORY / "setup.cfg")["metadata"]
    assert metadata["version"] == napari_dinoaugseg.__version__
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == napari_dinoaugseg.__version__
    released = re.search(r"^## \[(\d.*)\] – (.*)$", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released is not None
    assert released.groups() == (citation["version"], str(citation["date-released"]))


def test_manifest_is_valid_and_its_commands_exist():
    manifest = PluginManifest.from_file(PACKAGE / "napari.yaml")
    assert manifest.name == "napari-dinoaugseg"
    manifest.validate_imports()


def test_napari_finds_the_manifest_of_the_installed_package():
    manifest = PluginManifest.from_distribution("napari-dinoaugseg")
    assert manifest.display_name == "DINO-AugSeg"
    assert manifest.package_version == napari_dinoaugseg.__version__
