"""Models as their makers ship them. Packages that are not installed are skipped, visibly."""

import warnings

import numpy as np
import pytest

from tests.onnx.shipped_models import SHIPPED, Shipped, check


def _case(shipped: Shipped):
    # A model that is not there is skipped, whatever it would do.
    marks = [pytest.mark.xfail(reason=shipped.fails)] if shipped.fails and shipped.load() else []
    return pytest.param(shipped, marks=marks, id=str(shipped))


@pytest.mark.parametrize("shipped", [_case(shipped) for shipped in SHIPPED])
def test_the_gradient_agrees_with_differences(shipped: Shipped) -> None:
    model = shipped.load()
    if model is None:
        pytest.skip(f"{shipped.package} is not installed")
    # The reference evaluator's own warnings.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        verdict = check(shipped, model)
    assert verdict.refused == shipped.refused
    assert shipped.refused or verdict.agrees(shipped), verdict
