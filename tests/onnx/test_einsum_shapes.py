"""Sizes of an Einsum whose first operand has size 1 where others have more, and what is made of them."""

import numpy as np
import onnx.parser
import pytest
from mollikit_onnx import ModelError, OnnxOracle, pruned, vjp
from onnx import shape_inference

from tests.onnx.gradient_checks import run_onnxruntime

LATER = {
    "product": "y = Mul(e, w)",
    "shape": "s = Shape(e)  o = Expand(w, s)  p = Mul(e, e)  y = Mul(p, o)",
    "chain": "h = Tanh(e)  f = Einsum<equation = 'aij,aij->aij'>(h, w)  y = Mul(f, w)",
}
# A one beside a symbol is apart, where ONNX Runtime goes wrong by onnx's sizes of a Shape itself.
EQUATIONS = {
    "letters": ("aij,ajk->aik", "1,3,2", "4,2,3"),
    "symbol beside a number": ("aij,ajk->aik", "n,3,2", "4,2,3"),
    "symbols": ("aij,ajk->aik", "n,3,2", "m,2,3"),
    "ellipses": ("...ij,...jk->...ik", "1,3,2", "4,2,3"),
    "ellipses and symbols": ("...ij,...jk->...ik", "n,3,2", "m,2,3"),
    "transposed": ("aij,akj->aik", "1,3,2", "4,3,2"),
}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("stored", [False, True])
def test_the_gradient_after_an_einsum_that_spreads(equation, later, stored) -> None:
    """Against central differences along one direction; with onnx's shapes in the file, and without."""
    text, of_a, of_b = EQUATIONS[equation]
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        m (float[{of_a}] a, float[{of_b}] b, float[4,3,3] w) => (float[p,q,r] y)
        {{ e = Einsum<equation = "{text}">(a, b)  {LATER[later].replace("'", '"')} }}"""
    )
    if stored:
        model = shape_inference.infer_shapes(model)
    gradient = pruned(vjp(model, ["a", "b", "w"], ["y"]), ["a.gradient", "b.gradient", "w.gradient"])
    rng = np.random.default_rng(0)
    sizes = {
        "a": (1, 3, 2) if len(of_a) > 3 else (3, 2),
        "b": (4, *map(int, of_b.split(",")[1:])),
        "w": (4, 3, 3),
    }
    x, d = ({k: rng.standard_normal(s).astype(np.float32) for k, s in sizes.items()} for _ in range(2))
    g = rng.standard_normal((4, 3, 3)).astype(np.float32)
    h = np.float32(1e-2)
    ahead, behind = (
        run_onnxruntime(model, {k: x[k] + s * h * d[k] for k in x})[0].astype(float) for s in (1, -1)
    )
    found = run_onnxruntime(gradient, {**x, "y.cotangent": g})
    assert [a.shape for a in found] == list(sizes.values())
    slope = sum(np.vdot(a, d[k]) for a, k in zip(found, x, strict=True))
    np.testing.assert_allclose(slope, np.vdot(g, ahead - behind) / (2 * h), rtol=0, atol=0.05)


@pytest.mark.parametrize(("shape", "equation"), [("1,3,4", "aij,ajk->aik"), ("1,4,3", "aji,ajk->aik")])
def test_rows_do_not_mix_where_a_weight_of_one_row_meets_the_batch(shape, equation) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        m (float[n,4,5] x, float[n,3,5] w) => (float[n,15] y) <float[{shape}] q =
        {{1.0, 2.0, -1.0, 0.5, 3.0, 1.5, -2.0, 0.25, 1.0, -0.5, 2.0, 4.0}}>
        {{ e = Einsum<equation = "{equation}">(q, x)  p = Mul(e, w)  y = Flatten(p) }}"""
    )
    oracle = OnnxOracle(model, target=2)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((7, 4, 5), np.float32), rng.standard_normal((7, 3, 5), np.float32)
    _, together = oracle.value_and_gradient({"x": x, "w": w})
    for k in range(7):
        _, alone = oracle.value_and_gradient({"x": x[k : k + 1], "w": w[k : k + 1]})
        for name, gradient in alone.items():
            np.testing.assert_allclose(together[name][k : k + 1], gradient, rtol=1e-6)


@pytest.mark.parametrize("equation", [None, "ij,jk->ik", "->", ",,,", "i->j", "\xff", "ijklm->m"])
def test_equations_that_do_not_fit_are_refused(equation) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        m (float[2,3] a) => (float[p] y) { e = Einsum<equation = "ij->i">(a)  y = Exp(e) }"""
    )
    (attribute,) = model.graph.node[0].attribute
    if equation is None:
        del model.graph.node[0].attribute[:]
    else:
        attribute.s = equation.encode("latin-1")
    with pytest.raises(ModelError):
        vjp(model, ["a"], ["y"])
