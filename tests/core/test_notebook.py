"""How an estimate shows itself in a notebook."""

import base64
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

import mollikit as mk
from mollikit.notebook import estimate_html, estimate_png


class Square:
    def value_and_gradient(self, points, **held):
        return (points**2).reshape(len(points), -1).sum(-1), 2 * points


def estimate(shape, views=None, oracle=None):
    inputs = np.random.default_rng(0).normal(size=shape)
    smooth = mk.Pathwise(inputs=mk.Gaussian(0.5), sampler=mk.Independent())
    return smooth.estimate(oracle or Square(), inputs, views=views, budget=mk.Evaluations(32), rng=7)


def png_size(content):
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_an_image_is_drawn_with_each_view_that_is_a_picture():
    alone = png_size(estimate_png(estimate((3, 12, 12))))
    pooled = mk.ChannelSum().then(mk.Pool(4))
    views = {"pooled": pooled, "total": lambda g: g.sum(axis=(1, 2, 3))}
    assert png_size(estimate_png(estimate((3, 12, 12), views))) == (3 * alone[0], alone[1])


def test_what_is_no_image_has_a_table_alone():
    vector = estimate((5,))
    assert estimate_png(vector) is None
    assert "<img" not in estimate_html(vector)
    assert "<table>" in estimate_html(vector)


def test_the_table_tells_what_is_known():
    shown = estimate((3, 12, 12), {"<view>": mk.ChannelSum()})
    table = re.sub(r"<[^>]*>", "|", estimate_html(shown))
    for told in (
        f"|{100 * shown.relative_error:.3g}%|",
        "32 in 32 independent groups",
        "Gaussian(0.5)",
        "Independent()",
        "7, item 0",
        "Evaluations(n=32)",
        f"{float(shown.output.value):.4g}",
    ):
        assert told in table
    assert "relative error, &lt;view&gt;" in table  # a name is text, not markup


def test_the_picture_in_the_table_is_the_picture():
    shown = estimate((12, 12))
    encoded = re.search(r"data:image/png;base64,([^']*)'", estimate_html(shown)).group(1)
    assert base64.b64decode(encoded) == estimate_png(shown)


def test_an_unresolved_error_is_said():
    class Alternating:
        def value_and_gradient(self, points, **held):
            signs = np.where(np.arange(len(points)) % 2, 1.0, -1.0)
            return None, np.broadcast_to(signs[:, None], points.shape)

    shown = estimate((2,), oracle=Alternating())
    assert np.isinf(shown.relative_error)
    assert "not resolved yet" in estimate_html(shown)
    assert "smoothed output" not in estimate_html(shown)


def test_without_matplotlib_there_is_a_table(monkeypatch):
    shown = estimate((12, 12))
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert shown._repr_png_() is None
    assert "<table>" in shown._repr_html_()


@pytest.mark.parametrize("form", ["_repr_html_", "_repr_png_"])
def test_notebooks_find_it(form):
    assert getattr(estimate((12, 12)), form)() is not None
