"""What every new viewer computes again from the same input, computed once a process.

A test of the panel makes a viewer of its own, and napari, npe2 and vispy then repeat work whose result depends on its
arguments only: parsing the manifests of the plugins and the text of the shaders, drawing letters, colouring all 65,536
values of a labels layer. `share_between_viewers` wraps these functions: the first call computes with the
library's own code, a later one with equal arguments gets a copy of that result. Nothing of the viewer is replaced.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

KEPT = 200  # results of a function, of up to a megabyte


def share_between_viewers(patch: pytest.MonkeyPatch) -> None:
    """Wrap the functions until `patch` is undone; what a version of a library does not have makes the tests fail."""
    _share_manifests(patch)
    _share_shader_texts(patch)
    _share_letters(patch)
    _share_label_colours(patch)


def remembered(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a pure function so that it runs once for each value of `key(*arguments)`; every caller gets a copy."""
    results: dict[Any, bytes] = {}

    def call(*arguments: Any) -> Any:
        known = key(*arguments)
        if known not in results:
            if len(results) == KEPT:
                del results[next(iter(results))]
            results[known] = pickle.dumps(function(*arguments), protocol=pickle.HIGHEST_PROTOCOL)
        return pickle.loads(results[known])

    return call


def _share_manifests(patch: pytest.MonkeyPatch) -> None:
    """Parse each plugin's YAML once: napari's fixture discovers the plugins again for each viewer."""
    from npe2.manifest import _bases

    original = _bases._load_yaml_no_duplicates
    parse = remembered(lambda content: original(BytesIO(content)), key=bytes)
    patch.setattr(_bases, "_load_yaml_no_duplicates", lambda stream: parse(stream.read()))


def _share_shader_texts(patch: pytest.MonkeyPatch) -> None:
    """Search each shader once for its variables, and write it once as the desktop wants it."""
    from vispy.gloo import glir, program
    from vispy.visuals.shaders.function import Function

    once = lru_cache(maxsize=None)
    original = Function._clean_code
    clean = once(lambda code: original(None, code))
    patch.setattr(Function, "_clean_code", lambda _, code: clean(code))
    patch.setattr(glir, "_convert_desktop_shader", once(glir._convert_desktop_shader))
    search = once(lambda *arguments: tuple(re.finditer(*arguments)))
    patch.setattr(program, "re", SimpleNamespace(**{**vars(re), "sub": once(re.sub), "finditer": search}))


def _share_letters(patch: pytest.MonkeyPatch) -> None:
    """Compute the distances from the outline of a letter once."""
    from vispy.visuals.text import text

    def render(data: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        texture = np.zeros((size[1], size[0], 3), np.uint8)
        original(None, data, texture, (0, 0), size)
        return texture

    original = text.SDFRendererCPU.render_to_texture
    letter = remembered(render, key=lambda data, size: (data.tobytes(), data.shape, tuple(size)))

    def render_to_texture(_: Any, data: np.ndarray, texture: Any, offset: Any, size: tuple[int, int]) -> None:
        texture[offset[1] : offset[1] + size[1], offset[0] : offset[0] + size[0], :] = letter(data, size)

    patch.setattr(text.SDFRendererCPU, "render_to_texture", render_to_texture)


def _share_label_colours(patch: pytest.MonkeyPatch) -> None:
    """Look up the colour of each possible label once for the same colours."""
    from napari.utils.colormaps.colormap import DirectLabelColormap

    def key(colormap: DirectLabelColormap, values: np.ndarray, apply_selection: bool) -> Any:
        colours = colormap._values_mapping_to_minimum_values_set(apply_selection)[1]
        content = tuple((number, np.asarray(colour).tobytes()) for number, colour in colours.items())
        return content, values.dtype.str, values.shape, values.tobytes()

    look_up = remembered(DirectLabelColormap._map_precast, key)
    patch.setattr(
        DirectLabelColormap,
        "_map_precast",
        lambda self, values, apply_selection: look_up(self, values, apply_selection),
    )
