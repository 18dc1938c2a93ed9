"""The API page is what the docstrings say now."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tools.api_page import PACKAGE, PAGE, SECTIONS, api_page

PUBLIC = [(module, name) for _, _, modules in SECTIONS for module, names in modules.items() for name in names]


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == api_page(), "run `make docs`"


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda part: part)
def test_what_is_public_says_what_it_is(module: str, name: str):
    found = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert inspect.getdoc(found)
