from __future__ import annotations

import pickle

import numpy as np
import pytest

import mollikit as mk
from mollikit.testing import OracleConformance

WEIGHTS = np.random.default_rng(5).standard_normal((6, 4))
POINTS = np.random.default_rng(9).standard_normal((4, 6))


def tanh(x, mask):
    return (mask * np.tanh(x)).sum(-1)


def tanh_gradient(x, mask):
    return mask / np.cosh(x) ** 2


def both(x, mask):
    return tanh(x, mask), tanh_gradient(x, mask)


def logits(x):
    return np.tanh(x) @ WEIGHTS


class TestAFunctionAndItsGradient(OracleConformance):
    def oracle(self):
        return mk.FunctionOracle(tanh, gradient=tanh_gradient)

    def points(self, m, rng):
        return rng.standard_normal((m, 6))

    def held(self, m, rng):
        return {"mask": rng.integers(1, 3, (m, 6)).astype(float)}


class TestBothAtOnce(TestAFunctionAndItsGradient):
    def oracle(self):
        return mk.FunctionOracle(value_and_gradient=both)


class TestRowByRow(TestAFunctionAndItsGradient):
    def oracle(self):
        return mk.FunctionOracle(value_and_gradient=both, rowwise=True)


class TestTwoInputs(OracleConformance):
    def oracle(self):
        return mk.FunctionOracle(
            value=lambda a, b: (a**2).sum(-1) * b.sum(-1),
            gradient=lambda a, b: {
                "b": (a**2).sum(-1, keepdims=True) + 0 * b,
                "a": 2 * a * b.sum(-1, keepdims=True),
            },
        )

    def points(self, m, rng):
        return {"a": rng.standard_normal((m, 3)), "b": 2 + rng.standard_normal((m, 2))}


class TestTwoInputsRowByRow(TestTwoInputs):
    def oracle(self):
        return mk.FunctionOracle(
            value_and_gradient=lambda a, b: (
                (a**2).sum() * b.sum(),
                {"a": 2 * a * b.sum(), "b": (a**2).sum() + 0 * b},
            ),
            rowwise=True,
        )


def test_a_quadratic_is_exact():
    oracle = mk.FunctionOracle(lambda x: (x**2).sum(-1), gradient=lambda x: 2 * x)
    estimate = mk.Pathwise(mk.Gaussian(0.3)).estimate(
        oracle, np.array([1.0, -2.0]), budget=mk.Evaluations(64), rng=0
    )
    np.testing.assert_allclose(estimate.gradient, [2, -4], rtol=1e-12)


def test_estimators_see_whether_there_is_a_gradient():
    black_box = mk.FunctionOracle(lambda x: (x**2).sum(-1))
    assert not isinstance(black_box, mk.GradientOracle)
    assert isinstance(mk.FunctionOracle(tanh, gradient=tanh_gradient), mk.GradientOracle)
    with pytest.raises(TypeError, match=r"has no value_and_gradient.*Secant and ScoreFunction"):
        mk.Pathwise(mk.Gaussian(0.1)).estimate(black_box, np.ones(3), budget=mk.Evaluations(64), rng=0)
    estimate = mk.Secant(mk.Gaussian(0.1)).estimate(black_box, np.ones(3), budget=mk.Evaluations(600), rng=0)
    assert np.all(np.abs(estimate.gradient - 2) < 5 * estimate.standard_error + 1e-9)


def test_a_classifier_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LogisticRegression().fit(POINTS.repeat(5, 0), np.arange(20) // 5 % 3)
    oracle = mk.FunctionOracle(model.predict_proba, target="top")
    x = POINTS[1]
    anchored = oracle.anchored(x)
    np.testing.assert_array_equal(
        anchored.value(POINTS), model.predict_proba(POINTS)[:, model.predict_proba(x[None])[0].argmax()]
    )
    assert oracle.predict(POINTS[:0]).shape == (0, 3)
    estimate = mk.Secant(mk.Gaussian(0.05)).estimate(oracle, x, budget=mk.Evaluations(2400), rng=0)
    target = model.predict_proba(x[None])[0].argmax()
    p = model.predict_proba(x[None])[0]
    by_hand = p[target] * (model.coef_[target] - p @ model.coef_)
    # The width is small beside the curvature of the logistic function, so smoothing changes 1% at most.
    assert np.linalg.norm(estimate.gradient - by_hand) < 0.05 * np.linalg.norm(by_hand)
    labels = mk.FunctionOracle(lambda x: np.array(["cat", "dog"])[(x[:, 0] > 0).astype(int)])
    with pytest.raises(TypeError, match=r"array of <U3.*predict_proba or decision_function"):
        labels.value(POINTS)


@pytest.mark.parametrize("rowwise", [False, True])
def test_targets(rowwise):
    def oracle(**options):
        return mk.FunctionOracle(logits, rowwise=rowwise, **options)

    expected = logits(POINTS)
    np.testing.assert_allclose(oracle(target=2).value(POINTS), expected[:, 2])
    by_row = np.array([3, 0, 1, 1])
    np.testing.assert_allclose(oracle().value(POINTS, target=by_row), expected[np.arange(4), by_row])
    np.testing.assert_allclose(
        oracle(target=lambda y: y[:, 0] - y[:, 1]).value(POINTS), expected[:, 0] - expected[:, 1]
    )
    np.testing.assert_allclose(oracle().predict(POINTS, target=by_row), expected)


def test_outputs():
    for output in (1, "parts", lambda answer: answer[1]):
        answer = {"sum": 0, "parts": logits} if output == "parts" else None

        def function(x, answer=answer):
            return (x.sum(-1), logits(x)) if answer is None else {"sum": x.sum(-1), "parts": logits(x)}

        oracle = mk.FunctionOracle(function, target=2, output=output)
        np.testing.assert_array_equal(oracle.value(POINTS), logits(POINTS)[:, 2])
    with pytest.raises(TypeError, match="2 outputs, numbered from 0: choose one array by output="):
        mk.FunctionOracle(lambda x: (x, x), target=0).value(POINTS)


def test_integers_and_booleans_are_numbers():
    assert mk.FunctionOracle(lambda x: x[:, 0] > 0).value(POINTS).dtype == np.float64


def test_a_function_may_write_on_its_arguments():
    def doubling(x, mask):
        x *= 2
        mask *= 0
        return x.sum(-1)

    points, mask = POINTS.copy(), np.ones((4, 6))
    np.testing.assert_array_equal(mk.FunctionOracle(doubling).value(points, mask=mask), 2 * POINTS.sum(-1))
    np.testing.assert_array_equal(points, POINTS)
    assert np.all(mask == 1)


def test_pickled_and_described():
    oracle = mk.FunctionOracle(tanh, gradient=tanh_gradient)
    again = pickle.loads(pickle.dumps(oracle))
    np.testing.assert_array_equal(
        again.value_and_gradient(POINTS, mask=POINTS)[1], tanh_gradient(POINTS, POINTS)
    )
    assert oracle.describe()["function"] == "tanh"
    assert repr(mk.FunctionOracle(logits, target=3)) == "FunctionOracle(logits, target=3)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mk.FunctionOracle(), TypeError, "takes value= or value_and_gradient="),
        (lambda: mk.FunctionOracle(3), TypeError, "value= is a function, and got a int"),
        (lambda: mk.FunctionOracle(tanh, gradient=3), TypeError, "gradient= is a function"),
        (
            lambda: mk.FunctionOracle(tanh, gradient=tanh_gradient, value_and_gradient=both),
            ValueError,
            "leave one out",
        ),
        (lambda: mk.FunctionOracle(tanh, gradient=tanh_gradient, target=1), ValueError, "leave target="),
        (lambda: mk.FunctionOracle(tanh, target="dog"), TypeError, "target is an int"),
    ],
)
def test_bad_oracles(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("oracle", "error", "message"),
    [
        (mk.FunctionOracle(logits), ValueError, "4 elements a row: choose one by target="),
        (mk.FunctionOracle(logits, target=4), ValueError, "target 4 is out of range"),
        (mk.FunctionOracle(logits, target="top"), ValueError, r"call oracle.anchored\(inputs\)"),
        (mk.FunctionOracle(lambda x: x.sum()), ValueError, r"shape \(\) for 4 points"),
        (mk.FunctionOracle(lambda x: x.T, target=0), ValueError, "its first axis must be the batch"),
        (
            mk.FunctionOracle(logits, target=lambda y: y[:, 0] - y[:, 0].mean()),
            ValueError,
            "mixes the rows of a batch",
        ),
        (mk.FunctionOracle(logits, target=lambda y: y), ValueError, r"an array \(4, 4\) for 4 points"),
        (mk.FunctionOracle(lambda x: x[:, 0] * 1j), TypeError, "an array of complex128"),
        (mk.FunctionOracle(logits, gradient=lambda x: x), ValueError, r"values of shape \(4, 4\)"),
        (
            mk.FunctionOracle(lambda x: x.sum(-1), gradient=lambda x: x[:, :2]),
            ValueError,
            r"shape \(4, 2\), and the points have \(4, 6\)",
        ),
    ],
)
def test_bad_answers(oracle, error, message):
    gradient = isinstance(oracle, mk.GradientOracle)
    with pytest.raises(error, match=message):
        (oracle.value_and_gradient if gradient else oracle.value)(POINTS)


def test_gradients_of_a_mapping():
    def value(a, b):
        return a.sum(-1) + b.sum(-1)

    points = {"a": POINTS, "b": POINTS}
    with pytest.raises(TypeError, match="points are a mapping, and so is their gradient"):
        mk.FunctionOracle(value, gradient=lambda a, b: a).value_and_gradient(points)
    with pytest.raises(ValueError, match=r"gradient is of \['a'\], and the points are \['a', 'b'\]"):
        mk.FunctionOracle(value, gradient=lambda a, b: {"a": a}).value_and_gradient(points)
