"""What is computed once for all viewers is what the libraries compute, and nobody's result reaches another."""

from __future__ import annotations

import numpy as np
import pytest

from tests.viewers import remembered, share_between_viewers


@pytest.fixture
def shared(monkeypatch):
    share_between_viewers(monkeypatch)


def test_a_result_is_computed_once_for_equal_arguments_and_never_shared():
    calls = []

    def listed(text: str) -> list[str]:
        calls.append(text)
        return list(text)

    call = remembered(listed, key=str)
    call("ab").append("c")
    assert call("ab") == ["a", "b"]
    assert call("ba") == ["b", "a"]
    assert calls == ["ab", "ba"]


def test_labels_have_their_own_colours_whatever_was_coloured_before(shared):
    from napari.utils.colormaps import DirectLabelColormap

    values = np.array([[0, 1, 2], [7, 1, 0]], np.uint16)
    for colours in ({1: "red", 2: "blue"}, {1: "blue", 2: "red"}, {1: "red", 2: "blue"}, {1: "red"}):
        for hidden in ({}, {"use_selection": True, "selection": 1}):
            colormap = DirectLabelColormap(color_dict={None: "transparent", **colours}, **hidden)
            expected = [[colormap.map(int(value)) for value in row] for row in values]
            np.testing.assert_allclose(colormap.map(values), np.array(expected, float))


def test_a_letter_is_drawn_as_vispy_draws_it():
    from vispy.visuals.text.text import SDFRendererCPU

    rng = np.random.default_rng(0)
    glyphs = [(rng.random((30, 24)) > 0.5).astype(np.uint8) * 255 for _ in range(2)]

    def drawn() -> np.ndarray:
        texture = np.zeros((64, 64, 3), np.uint8)
        for number, glyph in enumerate(glyphs):
            SDFRendererCPU().render_to_texture(glyph, texture, (20 * number, 8), (12, 15))
        return texture

    expected = drawn()
    with pytest.MonkeyPatch.context() as patch:
        share_between_viewers(patch)
        for _ in range(2):
            assert np.array_equal(drawn(), expected)
    assert expected[8:23, :12].any()
    assert not np.array_equal(expected[8:23, :12], expected[8:23, 20:32])


def test_the_variables_of_each_shader_are_its_own(shared):
    from vispy.gloo import Program
    from vispy.gloo.glir import convert_shader
    from vispy.visuals.shaders import Function

    shaders = [f"uniform float u_{name}; // uniform vec2 u_no\nvoid main() {{}}" for name in ("a", "b", "a")]
    names = [[name for *_, name in Program(shader, "void main() {}").variables] for shader in shaders]
    assert names == [["u_a"], ["u_b"], ["u_a"]]
    for name, shader in zip("aba", shaders, strict=True):
        assert f"uniform float u_{name};" in convert_shader("desktop", shader)
        assert f"u_{name}" in Function(f"  float {name}() {{\n    return u_{name};\n  }}").code


def test_every_manifest_is_its_own(shared, tmp_path):
    from npe2 import PluginManifest

    for name in ("one", "two", "one"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: plugin-{name}\n")
        manifest = PluginManifest.from_file(path)
        assert manifest.name == f"plugin-{name}"
        manifest.display_name = "changed"
    assert PluginManifest.from_file(tmp_path / "one.yaml").display_name != "changed"
