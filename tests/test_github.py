"""What runs on the code platform says the same as the Makefile, setup.cfg and the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools.config.setupcfg import read_configuration

from tests.conftest import REPOSITORY
from tests.docs.commands import check

GITHUB = REPOSITORY / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PYTHON = "Programming Language :: Python :: 3."


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps_of(workflow: str) -> list[dict[str, Any]]:
    jobs = read(GITHUB / "workflows" / workflow)["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_every_python_of_the_classifiers_is_tested_on_every_system():
    matrix = read(GITHUB / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]
    classifiers = read_configuration(REPOSITORY / "setup.cfg")["metadata"]["classifiers"]
    promised = [f"3.{name.removeprefix(PYTHON)}" for name in classifiers if name.startswith(PYTHON)]
    assert matrix["python"] == promised
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


@pytest.mark.parametrize("workflow", ["test.yml", "release.yml"])
def test_steps_of_workflows_exist(workflow: str):
    runs = [line.strip() for step in steps_of(workflow) for line in step.get("run", "").splitlines()]
    assert runs
    for line in runs:
        if line.startswith(("make ", "dinoaugseg ")) or "--editable" in line:
            check(line, run=False)
        for script in re.findall(r"(?:tools|\.ci)/\w+(?:\.sh)?", line):
            assert (REPOSITORY / script).is_file()


def test_both_qts_are_tested():
    runs = " ".join(step.get("run", "") for step in steps_of("test.yml"))
    assert "[pyqt5," in runs
    assert "make test-qt6" in runs


def test_only_a_tag_is_published_and_only_after_its_check():
    release = read(GITHUB / "workflows" / "release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # `on` is a yes in YAML
    publish = release["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    built = " ".join(step.get("run", "") for step in release["jobs"]["build"]["steps"])
    assert "python -m build" in built
    assert "twine check --strict" in built


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_forms_ask_for_what_is_needed_and_for_no_patient_data(form: Path):
    assert {path.stem for path in FORMS} == {"bug", "feature"}
    content = read(form)
    assert content["name"]
    assert content["description"]
    fields = {field["id"]: field for field in content["body"] if field["type"] != "markdown"}
    assert "dinoaugseg --version" in fields["version"]["attributes"]["description"]
    assert "Operating system" in fields["system"]["attributes"]["label"]
    assert fields["no_patient_data"]["attributes"]["options"][0]["required"] is True
    assert "No patient data" in content["body"][0]["attributes"]["value"]
