from __future__ import annotations

import numpy as np
import pytest

import mollikit as mk
from mollikit.health import Finding, Verdict, examine

X = np.random.default_rng(0).standard_normal(6)
WEIGHTS = np.random.default_rng(5).standard_normal((6, 4))


class Tanh:
    """f(x) = w . tanh(x)."""

    w = WEIGHTS[:, 0]

    def value(self, points):
        return np.tanh(points) @ self.w

    def value_and_gradient(self, points):
        return self.value(points), self.w / np.cosh(points) ** 2


class Wrong(Tanh):
    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        return values, 1.05 * gradients


class Detached(Tanh):
    """A coordinate that the gradient forgets."""

    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        gradients[:, np.argmax(np.abs(gradients[0]))] = 0
        return values, gradients


class Random(Tanh):
    def __init__(self, size=0.1):
        self.rng, self.size = np.random.default_rng(0), size

    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        return values, gradients * (1 + self.size * self.rng.standard_normal(gradients.shape))


class Coupled(Tanh):
    """BatchNorm in train mode."""

    def value_and_gradient(self, points):
        return super().value_and_gradient(points - points.mean(0) if len(points) > 1 else points)


class Flat(Tanh):
    def value(self, points):
        return 0 * points.sum(-1) + 1.0

    def value_and_gradient(self, points):
        return self.value(points), np.zeros_like(points)


class Saturated(Tanh):
    """A probability of nearly 1."""

    def value(self, points):
        return 1 / (1 + np.exp(-16 - np.tanh(points).sum(-1)))

    def value_and_gradient(self, points):
        p = self.value(points)
        return p, (p * (1 - p))[:, None] / np.cosh(points) ** 2


class Nan(Tanh):
    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        gradients[0, 2] = np.nan
        return values, gradients


class Raises(Tanh):
    def value_and_gradient(self, points):
        raise FloatingPointError("the model's gradient is NaN at row 0 (it arises in layer 'log')")


class Steep(Tanh):
    """It bends within the usual step: no fault, for a shorter one tells."""

    def value(self, points):
        return np.tanh(1e3 * points) @ self.w + points @ self.w

    def value_and_gradient(self, points):
        return self.value(points), self.w * (1e3 / np.cosh(1e3 * points) ** 2 + 1)


class Half(Tanh):
    def value(self, points):
        return super().value(points).astype(np.float16)

    def value_and_gradient(self, points):
        values, gradients = super().value_and_gradient(points)
        return values, gradients.astype(np.float16)


class GradientOnly:
    def value_and_gradient(self, points):
        return None, Tanh().value_and_gradient(points)[1]


def found(oracle, x=X):
    health = examine(oracle, x, seconds=0.02)
    return health, {finding.check: finding for finding in health.findings}


def test_a_healthy_model():
    health, findings = found(Tanh())
    assert health.healthy
    assert {finding.verdict for finding in health.findings} == {Verdict.GOOD}
    assert set(findings) == {"finite", "deterministic", "rows", "gradient", "saturation", "dtype", "cost"}
    cost = findings["cost"]
    assert cost.figures["best_rows"] >= 1
    assert f"block={cost.figures['best_rows']}" in cost.mend
    assert cost.figures["value_seconds"] > 0


@pytest.mark.parametrize(
    ("oracle", "check", "message", "mend"),
    [
        (Wrong(), "gradient", "disagrees with differences of the value by 5%", "look for detach"),
        (Detached(), "gradient", "disagrees", "look for detach"),
        (Random(), "deterministic", "the model is random", "evaluation mode"),
        (Coupled(), "rows", "rows of a batch influence each other", "BatchNorm"),
        (Flat(), "saturation", "exactly zero everywhere", "logit"),
        (Nan(), "finite", "gradient is NaN or infinite at the input itself", "logarithm"),
        (Raises(), "finite", "it arises in layer 'log'", "range"),
    ],
)
def test_each_fault_is_named_with_its_mend(oracle, check, message, mend):
    health, findings = found(oracle)
    assert not health.healthy
    assert findings[check].verdict is Verdict.FAULT
    assert message in findings[check].message
    assert mend in findings[check].mend
    others = {name for name, finding in findings.items() if finding.verdict is Verdict.FAULT} - {check}
    # A random or coupled gradient is not that of the value either.
    assert others <= {"gradient", "rows"}


@pytest.mark.parametrize(
    ("oracle", "check", "message"),
    [
        (Random(1e-14), "deterministic", "differ by rounding"),
        (Saturated(), "saturation", "flat at the input"),
        (Half(), "dtype", "computes in float16, with 3 digits"),
        (GradientOnly(), "gradient", "gives no values"),
    ],
)
def test_remarks_are_no_faults(oracle, check, message):
    health, findings = found(oracle)
    assert health.healthy, [f for f in health.findings if f.verdict is Verdict.FAULT]
    assert findings[check].verdict is Verdict.REMARK
    assert message in findings[check].message


def test_a_steep_model_is_told_from_a_wrong_gradient():
    x = np.full(6, 1e-4)
    assert found(Steep(), x)[1]["gradient"].verdict is Verdict.GOOD


def test_several_inputs_and_held_arrays():
    oracle = mk.FunctionOracle(
        value=lambda a, b, mask: (mask * a**2).sum(-1) * b.sum(-1),
        gradient=lambda a, b, mask: {
            "a": 2 * mask * a * b.sum(-1, keepdims=True),
            "b": (mask * a**2).sum(-1, keepdims=True) + 0 * b,
        },
    )
    x = {"a": X, "b": np.ones(2, np.float32)}
    assert examine(oracle, x, held={"mask": np.arange(6)}, seconds=0.02).healthy


def test_memory_that_ends():
    class Large(Tanh):
        def value_and_gradient(self, points):
            if len(points) > 8:
                raise MemoryError("no memory for a batch")
            return super().value_and_gradient(points)

    cost = examine(Large(), X, seconds=5)["cost"]
    assert cost.figures["memory_ends_at_rows"] == 16
    assert "memory ends at 16 rows" in cost.mend


def test_what_cannot_be_examined():
    with pytest.raises(TypeError, match=r"no value_and_gradient.*Secant and ScoreFunction"):
        examine(mk.FunctionOracle(lambda x: x.sum(-1)), X)
    with pytest.raises(TypeError, match="cannot be smoothed"):
        examine(Tanh(), np.arange(6))
    with pytest.raises(KeyError, match="'colour' was not looked at"):
        _ = examine(Tanh(), X, seconds=0.02)["colour"]


def test_a_finding_as_json():
    told = Finding("dtype", Verdict.REMARK, "float16", "float32", {"digits": 3}).to_dict()
    assert told == {
        "check": "dtype",
        "verdict": "remark",
        "message": "float16",
        "mend": "float32",
        "figures": {"digits": 3},
    }
