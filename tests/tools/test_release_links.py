"""PyPI and the hub get addresses that lead to the repository."""

from __future__ import annotations

import re
from configparser import ConfigParser

import pytest

from tests.conftest import REPOSITORY
from tools.release_links import with_addresses, with_urls

HOME = "https://code.example/someone/napari-dinoaugseg"


def test_every_relative_link_and_picture_of_the_readme_leads_to_the_repository():
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    made = with_addresses(readme, HOME, "v1.2.3")
    assert "<img" not in made
    targets = re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", made)
    assert all(target.startswith(("https://", "#")) for target in targets)
    ours = [target.removeprefix(HOME) for target in targets if target.startswith(HOME)]
    assert "/raw/v1.2.3/docs/screenshots/strokes.gif" in ours
    assert "/blob/v1.2.3/CITATION.cff" in ours
    for target in ours:
        assert (REPOSITORY / target.split("/", 3)[3].partition("#")[0]).exists(), target


def test_setup_cfg_names_source_issues_documentation_and_changes():
    setup = (REPOSITORY / "setup.cfg").read_text("utf-8")
    before, urls = urls_of(setup), urls_of(with_urls(setup, HOME, "v1.2.3"))
    assert not any(HOME in url for url in before.values())
    assert urls.items() >= before.items()
    assert urls["Source Code"] == HOME
    assert urls["Bug Tracker"] == f"{HOME}/issues"
    assert urls["Changelog"] == f"{HOME}/blob/v1.2.3/CHANGELOG.md"


def urls_of(setup: str) -> dict[str, str]:
    read = ConfigParser()
    read.read_string(setup)
    lines = read["metadata"]["project_urls"].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


def test_a_setup_cfg_without_urls_is_refused():
    with pytest.raises(ValueError, match="project_urls"):
        with_urls("[metadata]\n", HOME, "v1.2.3")
