"""The gradient of every node case of onnx's own backend suite that has one."""

from functools import cache

import pytest

from tests.onnx.backend_suite import Score, score, suite

# Passed among the scorable ones, that is all but those without a truth to compare with.
SHARE = 0.97


@cache
def scored(name: str) -> Score:
    return score(suite()[name])


@pytest.mark.parametrize("name", suite())
def test_no_case_is_wrong(name: str) -> None:
    """A case passes, or is refused before anything runs."""
    found = scored(name)
    assert found.outcome in ("passed", "refused", "unscorable"), found.reason


def test_share_of_cases_that_pass() -> None:
    outcomes = [scored(name).outcome for name in suite()]
    scorable = len(outcomes) - outcomes.count("unscorable")
    assert len(outcomes) > 1300
    assert scorable >= 0.97 * len(outcomes)
    assert outcomes.count("passed") >= SHARE * scorable
