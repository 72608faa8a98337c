from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mollikit_torch import TorchOracle  # noqa: E402
from torch import nn  # noqa: E402

from tests.torch import nets  # noqa: E402

POINTS = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
IMAGES = np.random.default_rng(9).standard_normal((4, 2, 8, 8)).astype(np.float32)


class Functional(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training).sum(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nets.Normalised, r"norm \(BatchNorm2d\), drop \(Dropout\) are in train mode.*model.eval\(\)"),
        (Functional, r"the model itself \(Functional\) is in train mode"),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Dropout(0.1))), r"1.0 \(Dropout\) is"),
        (lambda: torch.jit.script(nn.Linear(6, 2)), "RecursiveScriptModule"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_train_mode_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        TorchOracle(make(), target=0)


def test_a_model_that_has_but_one_mode_needs_no_eval():
    TorchOracle(nn.Sequential(nn.Linear(6, 2), nn.ReLU()), target=0).value_and_gradient(POINTS)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (5, ValueError, r"target 5 is out of range: the output has 5 classes, counted from 0"),
        (-1, ValueError, r"target -1 is out of range"),
        ((1, 2), ValueError, r"2 indices.*1 axes"),
        (1.0, TypeError, "target is an int"),
        (True, TypeError, "target is an int"),
        ("tiger", TypeError, "target is an int.*'tiger'"),
        (None, ValueError, "has 5 elements a row: choose one by target="),
        (lambda y: y, ValueError, r"a tensor \(4, 5\) for 4 points.*shape \(4,\)"),
        (lambda y: y.sum(), ValueError, r"a tensor \(\) for 4 points"),
        (lambda y: 3.0, ValueError, "an object of type float"),
        (lambda y: y.argmax(1), TypeError, "target function's result is of torch.int64"),
        (lambda y: y[:, 0] - y[:, 0].mean(), ValueError, "mixes the rows of a batch: row 0 gives"),
        (lambda y: y.softmax(0)[:, 0], ValueError, "mixes the rows of a batch"),
        (lambda y: y[:, 0].detach(), ValueError, "does not depend on the points by differentiable"),
    ],
)
def test_bad_targets(target, error, message):
    with pytest.raises(error, match=message):
        TorchOracle(nets.mlp(), target=target).value_and_gradient(POINTS)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (np.array([0, 1, 2, 5]), ValueError, "target 5 is out of range"),
        (np.array([0, 1, -2, 3]), ValueError, "target -2 is out of range"),
        (np.array([0, 1]), ValueError, r"shape \(4,\) and got \(2,\)"),
        (np.zeros((4, 2), int), ValueError, r"shape \(4,\) and got \(4, 2\)"),
        (np.zeros(4), TypeError, "takes integers and got an array of float64"),
    ],
)
def test_bad_targets_by_row(target, error, message):
    with pytest.raises(error, match=message):
        TorchOracle(nets.mlp()).value_and_gradient(POINTS, target=target)


def test_a_target_by_row_beside_a_function():
    with pytest.raises(ValueError, match="target is a function"):
        TorchOracle(nets.mlp(), target=lambda y: y[:, 0]).value_and_gradient(POINTS, target=np.zeros(4, int))


@pytest.mark.parametrize(
    ("model", "output", "error", "message"),
    [
        (lambda x: (x, x), None, TypeError, "2 outputs, numbered from 0: choose one tensor by output="),
        (lambda x: {"a": x}, None, TypeError, r"keys \['a'\]: choose one"),
        (lambda x: {"a": x}, "b", ValueError, r"no output 'b'.*keys \['a'\]"),
        (lambda x: (x, x), 2, ValueError, "no output 2: it returns 2 outputs"),
        (lambda x: x, "logits", ValueError, r"no output 'logits': it returns a tensor \(4, 6\)"),
        (lambda x: x.T, None, ValueError, r"shape \(6, 4\) for 4 points: its first axis must be the batch"),
        (lambda x: x.sum(), None, ValueError, r"shape \(\) for 4 points"),
        (lambda x: x.round().long(), None, TypeError, "output is of torch.int64, which has no gradient"),
        (lambda x: torch.tensor(x.detach().numpy()), None, ValueError, r"look for argmax.*\.numpy\(\)"),
    ],
)
def test_bad_outputs(model, output, error, message):
    with pytest.raises(error, match=message):
        TorchOracle(model, target=0, output=output).value_and_gradient(POINTS)


MASK = np.ones((4, 4), np.int64)
TWO = {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 4), np.float32)}


@pytest.mark.parametrize(
    ("points", "held", "error", "message"),
    [
        ({}, {"mask": MASK}, ValueError, "mapping of points is empty"),
        (TWO, {"mask": MASK, "b": MASK}, ValueError, "'b' is among the points and held too"),
        (TWO, {"mask": MASK[:3]}, ValueError, r"one row for each point; .*'mask': 3"),
        (TWO, {"mask": MASK.astype(str)}, TypeError, "held 'mask' is an array of <U21"),
        (
            {**TWO, "a": np.ones((4, 3), int)},
            {"mask": MASK},
            TypeError,
            "'a' is of int64, which cannot be smoothed",
        ),
        ({**TWO, "a": np.ones((4, 3), complex)}, {"mask": MASK}, TypeError, "'a' is an array of complex128"),
        ({**TWO, "a": np.float32(1)}, {"mask": MASK}, ValueError, "got a scalar"),
        (TWO, {}, TypeError, "mask"),
        (TWO, {"mask": MASK, "extra": MASK}, TypeError, "extra"),
    ],
)
def test_bad_batches(points, held, error, message):
    oracle = TorchOracle(nets.TwoInputs().eval(), target=0)
    for call in (oracle.value_and_gradient, oracle.predict):
        with pytest.raises(error, match=message):
            call(points, **held)


def test_shapes_are_checked_where_they_are_known():
    oracle = TorchOracle(nets.mlp(), target=0, input_shapes={"input": (6,)})
    assert oracle.value_and_gradient(POINTS)[1].shape == (4, 6)
    assert oracle.value_and_gradient({"input": POINTS})[1]["input"].shape == (4, 6)
    with pytest.raises(ValueError, match=r"\(m, 6\) and got \(6,\): add the batch axis"):
        oracle.value_and_gradient(POINTS[0])
    with pytest.raises(ValueError, match=r"inputs \['x'\]: the model has \['input'\]"):
        oracle.value_and_gradient({"x": POINTS})


def test_an_input_that_the_output_does_not_depend_on():
    oracle = TorchOracle(lambda a, b, mask: a, target=0)
    with pytest.raises(ValueError, match="does not depend on input 'b': hold it"):
        oracle.value_and_gradient(TWO, mask=MASK)


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


class Log(nn.Module):
    def forward(self, x):
        return x.log()


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (Root(), r"at 2 of 4 points, the first of them row 1 \(it arises in layer '1'\)"),
        (Log(), r"at 2 of 4 points, the first of them row 1 \(the output of layer '1' is not finite\)"),
    ],
)
def test_a_gradient_that_is_not_finite_names_row_and_layer(middle, message):
    points = np.ones((4, 6), np.float32)
    points[1, 2] = points[3, 0] = 0
    model = nn.Sequential(nn.Identity(), middle, nn.Linear(6, 2)).eval()
    with pytest.raises(FloatingPointError, match=message):
        TorchOracle(model, target=0).value_and_gradient(points)


def test_a_function_in_between_is_located_by_its_neighbours():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last((self.first(x) * 0).sqrt())

    with pytest.raises(
        FloatingPointError, match=r"4 of 4 points.*row 0 \(it arises behind .* layer 'first'\)"
    ):
        TorchOracle(Between().eval(), target=0).value_and_gradient(POINTS)


def test_rows_alone_are_named_where_there_are_no_layers():
    with pytest.raises(
        FloatingPointError, match="at 4 of 4 points, the first of them row 0: the model is not"
    ):
        TorchOracle(lambda x: (x * 0).sqrt(), target=0).value_and_gradient(POINTS)


def test_no_memory_is_a_memory_error():
    def expanding(x):
        return x.expand(10**7, *x.shape).repeat(10**7, 1, 1).sum((0, 2))

    with pytest.raises(MemoryError, match="no memory for a batch of 4"):
        TorchOracle(expanding).value_and_gradient(POINTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "embedding"}, r"no layer 'embedding'.*such as \['embeddings'\]"),
        ({"layer": "mix", "compile": True}, "leave compile= out"),
        ({"dtype": torch.int64}, "points are floats"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TorchOracle(nets.tokens(), **options)
    with pytest.raises(ValueError, match="the model is a function"):
        TorchOracle(torch.sin, layer="mix")
    with pytest.raises(TypeError, match="or a function, and got a str"):
        TorchOracle("model.pt")


class Recurring(nn.Module):
    def __init__(self):
        super().__init__()
        self.step, self.pair, self.idle = nn.Linear(6, 6), Twice(), nn.Linear(6, 6)

    def forward(self, x):
        return self.step(self.step(x)) + self.pair(x)[0]


class Twice(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("step", ValueError, "'step' is called 2 times"),
        ("idle", ValueError, "'idle' is called 0 times"),
        ("pair", TypeError, "'pair' returns a tuple"),
    ],
)
def test_layers_that_points_cannot_stand_for(layer, error, message):
    oracle = TorchOracle(Recurring().eval(), layer=layer, target=0)
    with pytest.raises(error, match=message):
        oracle.value_and_gradient(POINTS, x=POINTS)
    with pytest.raises(error, match=message):
        oracle.layer_output(x=POINTS)


def test_weights_without_data():
    with pytest.raises(
        ValueError, match=r"'weight' has no data yet: load the weights, or run the model once"
    ):
        TorchOracle(nn.LazyLinear(3).eval(), target=0)
    with pytest.raises(ValueError, match="has no data yet"):
        TorchOracle(nn.Linear(2, 3, device="meta").eval(), target=0)


def test_a_model_that_cannot_be_copied():
    model = nets.mlp()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"Sequential cannot be copied .*lock.*lambda x: model\(x\)"):
        TorchOracle(model, target=0)
    oracle = TorchOracle(lambda x: model(x), target=0)
    np.testing.assert_array_equal(
        oracle.value_and_gradient(POINTS)[1], TorchOracle(nets.mlp(), target=0).value_and_gradient(POINTS)[1]
    )


def test_what_cannot_be_pickled_says_which_part():
    class Local(nn.Linear):
        pass

    with pytest.raises(TypeError, match="oracle's target cannot be sent to another process"):
        pickle.dumps(TorchOracle(nets.mlp(), target=lambda y: y[:, 0]))
    with pytest.raises(TypeError, match="oracle's model cannot be sent to another process"):
        pickle.dumps(TorchOracle(Local(6, 2), target=0))


def test_an_output_of_nan_has_no_top():
    with pytest.raises(FloatingPointError, match="NaN on the clean input"):
        TorchOracle(lambda x: x * float("nan"), target="top").anchored(POINTS[0])
