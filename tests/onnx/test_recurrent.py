"""RNN, GRU and LSTM exported by hand from PyTorch's layers: gradients of inputs, states and weights."""

import numpy as np
import pytest
import torch
from mollikit_onnx import UnsupportedOperatorError, vjp
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime

# Where ONNX has the gates that PyTorch has in order.
ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}
INPUTS, HIDDEN = 5, 4


def recurrent(op_type: str, n_directions: int, **attributes: object) -> tuple[ModelProto, torch.nn.RNNBase]:
    torch.manual_seed(0)
    layer = getattr(torch.nn, op_type)(INPUTS, HIDDEN, bidirectional=n_directions == 2)

    def gates(name: str) -> np.ndarray:
        whole = []
        for suffix in ("_l0", "_l0_reverse")[:n_directions]:
            parts = np.split(getattr(layer, name + suffix).detach().numpy(), len(ORDER[op_type]))
            whole.append(np.concatenate([parts[k] for k in ORDER[op_type]]))
        return np.stack(whole)

    weights = {"W": gates("weight_ih"), "R": gates("weight_hh")}
    weights["B"] = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    states = ["h0", "c0"][: 2 if op_type == "LSTM" else 1]
    sizes = {"x": ["time", "batch", INPUTS], **{name: [n_directions, "batch", HIDDEN] for name in states}}
    direction = "bidirectional" if n_directions == 2 else "forward"
    if op_type == "GRU":
        attributes["linear_before_reset"] = 1
    node = helper.make_node(
        op_type,
        ["x", *weights, "", *states],
        ["y", "last", "cell"][: 1 + len(states)],
        hidden_size=HIDDEN,
        direction=direction,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "recurrent",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), layer


@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("n_directions", [1, 2])
def test_agrees_with_pytorch(op_type: str, n_directions: int) -> None:
    model, layer = recurrent(op_type, n_directions)
    names = [value.name for value in model.graph.output]
    states = [value.name for value in model.graph.input][1:]
    gradient = vjp(model, ["x", *states, "W", "R", "B"], names)
    for steps, batch in ((6, 3), (1, 2)):
        x = torch.randn(steps, batch, INPUTS, requires_grad=True)
        start = [torch.randn(n_directions, batch, HIDDEN, requires_grad=True) for _ in states]
        y, last = layer(x, tuple(start) if op_type == "LSTM" else start[0])
        values = [y, *(last if op_type == "LSTM" else [last])]
        cotangents = [torch.randn_like(value) for value in values]
        weights = list(layer.parameters())
        expected = torch.autograd.grad(values, [x, *start, *weights], cotangents)
        feeds = {
            "x": x.detach().numpy(),
            **{n: s.detach().numpy() for n, s in zip(states, start, strict=True)},
        }
        shaped = cotangents[0].reshape(steps, batch, n_directions, HIDDEN).movedim(2, 1)
        feeds |= {f"{n}.cotangent": g.numpy() for n, g in zip(names, [shaped, *cotangents[1:]], strict=True)}
        got = run_onnxruntime(gradient, feeds)[len(names) :]
        for here, there in zip(got[: 1 + len(states)], expected, strict=False):
            np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)
        # PyTorch lists the parameters of each direction: input weights, hidden weights, two biases.
        for d in range(n_directions):
            of_w, of_r, *of_b = (
                np.concatenate([np.split(g, len(ORDER[op_type]))[k] for k in ORDER[op_type]])
                for g in expected[1 + len(states) + 4 * d :][:4]
            )
            for here, there in zip(got[-3:], (of_w, of_r, np.concatenate(of_b)), strict=True):
                np.testing.assert_allclose(here[d], there, rtol=1e-4, atol=1e-5)


def test_states_alone() -> None:
    """A classifier that reads the last state: the hidden states are no output of the forward node."""
    model, layer = recurrent("LSTM", 1)
    model.graph.node[0].output[:] = ["", "last"]
    del model.graph.output[2], model.graph.output[0]
    x = torch.randn(4, 2, INPUTS, requires_grad=True)
    _, (last, _) = layer(x)
    (expected,) = torch.autograd.grad([last], [x], [torch.ones_like(last)])
    zeros = np.zeros((1, 2, HIDDEN), np.float32)
    feeds = {"x": x.detach().numpy(), "h0": zeros, "c0": zeros, "last.cotangent": np.ones_like(zeros)}
    *_, got = run_onnxruntime(vjp(model, ["x"], ["last"]), feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"clip": 1.0}, "without clip"),
        ({"activations": ["Sigmoid", "Affine", "Tanh"]}, "no alpha or no beta"),
        ({"activations": ["Sigmoid", "Sine", "Tanh"]}, "'sine' is not known"),
    ],
)
def test_refusals(attributes: dict[str, object], reason: str) -> None:
    model, _ = recurrent("LSTM", 1, **attributes)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        vjp(model, ["x"], ["y"])


@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM"])
def test_batch_first(op_type: str) -> None:
    """By the reference, since onnxruntime has no kernel for this layout."""
    rng = np.random.default_rng(0)
    model, _ = recurrent(op_type, 2)
    given = [value.name for value in model.graph.input]
    of = [value.name for value in model.graph.output]
    feeds = {"x": rng.standard_normal((4, 3, INPUTS)).astype(np.float32)}
    feeds |= {name: rng.standard_normal((2, 3, HIDDEN)).astype(np.float32) for name in given[1:]}
    feeds["y.cotangent"] = rng.standard_normal((4, 2, 3, HIDDEN), np.float32)
    feeds |= {f"{name}.cotangent": rng.standard_normal((2, 3, HIDDEN)).astype(np.float32) for name in of[1:]}
    asked = [f"{name}.gradient" for name in (*given, "W")]
    expected = evaluator(vjp(model, [*given, "W"], of)).run(asked, feeds)

    model.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value, sizes in zip(model.graph.input, (["b", "t", INPUTS], *[["b", 2, HIDDEN]] * 2), strict=False):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, sizes))
    turned = {name: a.swapaxes(0, 1) for name, a in feeds.items() if a.ndim == 3}
    turned["y.cotangent"] = feeds["y.cotangent"].transpose(2, 0, 1, 3)
    got = evaluator(vjp(model, [*given, "W"], of)).run(asked, turned)
    for here, there in zip(got[:-1], expected[:-1], strict=True):
        np.testing.assert_allclose(here.swapaxes(0, 1), there, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[-1], expected[-1], rtol=1e-5, atol=1e-6)
