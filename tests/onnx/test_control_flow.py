"""If, Scan and Loop: against differences in float64, and on ONNX Runtime in float32."""

import io

import numpy as np
import onnx.parser
import pytest
import torch
from mollikit_onnx import UnsupportedOperatorError, vjp
from onnx import ModelProto

from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import assert_directional, run_onnxruntime


def parsed(body: str, opset: int = 20) -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{body}')


def check(body: str, opset: int = 20, **feeds: np.ndarray) -> ModelProto:
    """Compare all gradients of a model, written for double, and return the gradient's graph."""
    model = parsed(body, opset)
    before = model.SerializeToString()
    wrt = [name for name, x in feeds.items() if x.dtype == np.float64]
    of = [value.name for value in model.graph.output if value.type.tensor_type.elem_type == 11]
    gradient = vjp(model, wrt, of)
    assert model.SerializeToString() == before
    onnx.checker.check_model(gradient)
    rng = np.random.default_rng(0)
    forward = evaluator(model)
    values = dict(zip([v.name for v in model.graph.output], forward.run(None, feeds), strict=True))
    cotangents = {f"{name}.cotangent": rng.standard_normal(np.shape(values[name])) for name in of}
    asked = [f"{name}.gradient" for name in wrt]
    got = evaluator(gradient).run(asked, feeds | cotangents)
    only = evaluator(model)
    only.run = lambda _, given: forward.run(of, given)  # type: ignore[method-assign, assignment]
    for name, array in zip(wrt, got, strict=True):
        assert array.shape == feeds[name].shape
        assert_directional(only, feeds, name, array, list(cotangents.values()), rng)
    narrow = vjp(parsed(body.replace("double", "float"), opset), wrt, of)
    single = {
        n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in (feeds | cotangents).items()
    }
    found = dict(zip([v.name for v in narrow.graph.output], run_onnxruntime(narrow, single), strict=True))
    for name, array in zip([*of, *asked], [*(values[n] for n in of), *got], strict=True):
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    return gradient


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


BRANCHES = """m (bool c, double[N,3] x, double[3] w) => (double[A,B] y) {
    z = Sin(x)
    y = If(c)<
        then_branch = t () => (double[A,B] a) { q = Exp(z)  a = Mul(q, w) },
        else_branch = e () => (double[A,B] b) { q = Cos(x)  b = Mul(q, x) }> }"""


@pytest.mark.parametrize("condition", [True, False])
def test_branches(condition: bool) -> None:
    check(BRANCHES, c=np.array(condition), x=drawn(2, 3), w=drawn(3))


@pytest.mark.parametrize("condition", [True, False])
def test_branches_of_several_outputs(condition: bool) -> None:
    check(
        """m (bool c, double[N] x) => (double[N] y, double[N] z, int64[1] k) {
            s = Sin(x)
            y, z, k = If(c)<
                then_branch = t () => (double[N] d, double[N] a, int64[1] i)
                    { d = Identity(s)  a = Mul(s, x)  i = Shape(a) },
                else_branch = e () => (double[N] b, double[N] f, int64[1] i)
                    { b = Exp(s)  f = Identity(b)  i = Shape(b) }> }""",
        c=np.array(condition),
        x=drawn(4),
    )


@pytest.mark.parametrize("condition", [True, False])
def test_branches_in_branches(condition: bool) -> None:
    check(
        """m (bool c, bool d, double[N] x) => (double[N] y) {
            y = If(c)<
                then_branch = t () => (double[N] a) {
                    r = Sin(x)
                    a = If(d)<
                        then_branch = u () => (double[N] f) { f = Mul(r, x) },
                        else_branch = v () => (double[N] g) { g = Exp(r) }> },
                else_branch = e () => (double[N] b) { b = Cos(x) }> }""",
        c=np.array(True),
        d=np.array(condition),
        x=drawn(4),
    )


SCAN = """m (double[T,B] x, double[B] h0, double[B] w) => (double[B] h, double[T,B] ys) {
    h, ys = Scan<num_scan_inputs = 1, body = b (double[B] hi, double[B] xi) => (double[B] ho, double[B] yo) {
        a = Mul(hi, w)  s = Add(a, xi)  ho = Tanh(s)  yo = Mul(ho, xi) }>(h0, x) }"""


def test_scan() -> None:
    check(SCAN, x=drawn(5, 3), h0=drawn(3), w=drawn(3))


def test_scan_of_one_step() -> None:
    check(SCAN, x=drawn(1, 3), h0=drawn(3), w=drawn(3))


@pytest.mark.parametrize(
    "options",
    [
        "scan_input_axes = [1, 0], scan_input_directions = [1, 0], scan_output_axes = [1], "
        "scan_output_directions = [1]",
        "scan_input_axes = [-1, 0], scan_input_directions = [0, 1], scan_output_axes = [-1]",
    ],
)
def test_scan_along_other_axes_and_backwards(options: str) -> None:
    check(
        f"""m (double[B,T] x, double[T,B] z, double[B] h0, int64[1] k)
            => (double[B] h, double[B,T] ys, int64[1] j) {{
            h, j, ys = Scan<num_scan_inputs = 2, {options}, body = b
                (double[B] hi, int64[1] ki, double[B] xi, double[B] zi)
                => (double[B] ho, int64[1] ko, double[B] yo) {{
                    one = Constant<value_ints = [1]>()  ko = Add(ki, one)
                    f = CastLike(ko, xi)  a = Mul(hi, zi)  s = Add(a, xi)  t = Mul(s, f)  ho = Sin(t)
                    yo = Mul(ho, zi) }}>(h0, k, x, z) }}""",
        x=drawn(3, 4),
        z=drawn(4, 3),
        h0=drawn(3),
        k=np.array([1]),
    )


def test_scan_without_states_and_without_results() -> None:
    check(
        """m (double[T,B] x, double[B] w) => (double[T,B] y) {
            y = Scan<num_scan_inputs = 1, body = b (double[B] i) => (double[B] o)
                { a = Sin(i)  o = Mul(a, w) }>(x) }""",
        x=drawn(4, 3),
        w=drawn(3),
    )
    check(
        """m (double[T,B] x, double[B] h0) => (double[B] y) {
            y = Scan<num_scan_inputs = 1, body = b (double[B] h, double[B] i) => (double[B] o)
                { o = Add(h, i) }>(h0, x) }""",
        x=drawn(4, 3),
        h0=drawn(3),
    )


def test_linear_steps_keep_no_states() -> None:
    gradient = check(
        """m (double[T,B] x, double[B] h0, double[B] w) => (double[B] y) {
            y = Scan<num_scan_inputs = 1, body = b (double[B] h, double[B] i) => (double[B] o)
                { a = Sin(i)  o = Add(h, a) }>(h0, x) }""",
        x=drawn(4, 3),
        h0=drawn(3),
        w=drawn(3),
    )
    forward = next(node for node in gradient.graph.node if node.op_type == "Scan")
    assert list(forward.output) == ["y"]


LOOP = """m (int64 n, bool c, double[N,3] x, double[3,3] w) => (double[N,3] y, double[T,N,3] s) {
    y, s = Loop(n, c, x)<body = b (int64 i, bool d, double[N,3] v) => (bool e, double[N,3] o, double[N,3] u) {
        e = Identity(d)  p = MatMul(v, w)  o = Tanh(p)  q = Sin(o)  f = CastLike(i, v)  u = Mul(q, f) }> }"""


@pytest.mark.parametrize("rounds", [1, 4])
def test_loop(rounds: int) -> None:
    check(LOOP, n=np.array(rounds), c=np.array(True), x=drawn(2, 3), w=drawn(3, 3))


def test_loop_without_rounds() -> None:
    model = parsed(LOOP.replace("double", "float"))
    g = drawn(2, 3).astype(np.float32)
    feeds = {"n": np.array(0), "c": np.array(True), "x": g, "w": np.ones((3, 3), np.float32)}
    feeds |= {"y.cotangent": g, "s.cotangent": np.zeros((0, 2, 3), np.float32)}
    *_, of_x, of_w = run_onnxruntime(vjp(model, ["x", "w"], ["y", "s"]), feeds)
    np.testing.assert_array_equal(of_x, g)
    np.testing.assert_array_equal(of_w, np.zeros((3, 3)))


def test_loop_that_stops_by_its_condition() -> None:
    check(
        """m (double[N] x) => (double[N] y) {
            y = Loop(, , x)<body = b (int64 i, bool d, double[N] v) => (bool e, double[N] o) {
                two = Constant<value_float = 2.0>()  factor = CastLike(two, v)  o = Mul(v, factor)
                most = ReduceMax<keepdims = 0>(o)  limit = Constant<value_float = 40.0>()
                wide = Cast<to = 1>(most)  e = Less(wide, limit) }> }""",
        x=np.array([1.3, -0.7, 0.2]),
    )


def test_loop_that_is_read_from_outside_and_holds_a_branch() -> None:
    check(
        """m (double[T,B] x, double[B] h0, double[B,B] w) => (double[B] h) {
            n = Shape<end = 1>(x)  m = Squeeze(n)
            h = Loop(m, , h0)<body = b (int64 i, bool d, double[B] v) => (bool e, double[B] o) {
                e = Identity(d)  xi = Gather(x, i)  p = MatMul(v, w)  q = Add(p, xi)
                two = Constant<value_int = 2>()  half = Mod(i, two)  even = Cast<to = 9>(half)
                o = If(even)<then_branch = t () => (double[B] r) { r = Tanh(q) },
                             else_branch = f () => (double[B] s) { s = Sin(q) }> }> }""",
        x=drawn(5, 3),
        h0=drawn(3),
        w=drawn(3, 3),
    )


def test_loops_in_loops() -> None:
    check(
        """m (double[T,B] x, double[B] h0, double[B] w) => (double[B] h) {
            n = Shape<end = 1>(x)  m = Squeeze(n)
            h = Loop(m, , h0)<body = b (int64 i, bool d, double[B] v) => (bool e, double[B] o) {
                e = Identity(d)
                o, ys = Scan<num_scan_inputs = 1, body = s (double[B] p, double[B] xi)
                    => (double[B] q, double[B] y)
                    { a = Mul(p, w)  c = Add(a, xi)  q = Sin(c)  y = Identity(q) }>(v, x) }> }""",
        x=drawn(3, 2),
        h0=drawn(2),
        w=drawn(2),
    )


def test_names_that_the_version_converter_gives_twice() -> None:
    """From opset 13, where the axes of ReduceMax were an attribute, it gives both constants one name."""
    body = """m (bool c, float[N,3] x) => (float[A,B] y) {
        z = ReduceMax<axes = [1]>(x)
        y = If(c)<then_branch = t () => (float[A,B] a) { q = ReduceMax<axes = [1]>(z)  a = Mul(q, x) },
                  else_branch = e () => (float[A,B] b) { b = Exp(x) }> }"""
    x = np.array([[1, 3, 2], [-1, -2, -3]], np.float32)
    feeds = {"c": np.array(True), "x": x, "y.cotangent": np.ones_like(x)}
    *_, got = run_onnxruntime(vjp(parsed(body, 13), ["x"], ["y"]), feeds)
    np.testing.assert_allclose(got, [[3, 9, 3], [-7, -1, -1]])


@pytest.mark.parametrize(
    "body",
    [
        # In the branch that is taken, or not.
        """m (bool c, double[N] x) => (double[N] y) {
            y = If(c)<then_branch = t () => (double[N] a) { a = com.example.Strange(x) },
                      else_branch = e () => (double[N] b) { b = Exp(x) }> }""",
        """m (double[T,B] x) => (double[T,B] y) {
            y = Scan<num_scan_inputs = 1, body = b (double[B] i) => (double[B] o)
                { o = com.example.Strange(i) }>(x) }""",
    ],
)
def test_what_has_no_rule_is_refused_inside_too(body: str) -> None:
    model = parsed(body)
    model.opset_import.add(domain="com.example", version=1)
    with pytest.raises(UnsupportedOperatorError, match="Strange"):
        vjp(model, ["x"], ["y"])


def test_what_does_not_matter_needs_no_rule() -> None:
    """A strange operator beside the path, and a carried value that nothing depends on."""
    check(
        """m (double[T,B] x, double[B] h0) => (double[B] y, int64 k) {
            zero = Constant<value_int = 0>()
            y, k = Scan<num_scan_inputs = 1, body = b (double[B] h, int64 j, double[B] i)
                => (double[B] o, int64 l) {
                    a = Floor(i)  m = ArgMax<keepdims = 0>(a)  l = Add(j, m)
                    s = Sin(i)  o = Mul(h, s) }>(h0, zero, x) }""",
        x=drawn(4, 3),
        h0=drawn(3),
    )


@pytest.mark.parametrize(
    "joined", ["o = Concat<axis = 0>(v, p)", "q = Mul(v, v)  o = Concat<axis = 0>(q, p)"]
)
def test_loop_whose_carried_value_grows(joined: str) -> None:
    check(
        f"""m (int64 n, double[N] x) => (double[M] y) {{
            y = Loop(n, , x)<body = b (int64 i, bool d, double[P] v) => (bool e, double[Q] o) {{
                e = Identity(d)  p = Sin(x)  {joined} }}> }}""",
        n=np.array(3),
        x=drawn(2),
    )


def test_sequences_that_a_loop_carries_are_refused() -> None:
    model = parsed(
        """m (double[N] x) => (double[M] y) {
            n = Constant<value_int = 3>()  s0 = SequenceEmpty<dtype = 11>()
            s = Loop(n, , s0)<body = b (int64 i, bool d, seq(double[N]) v) => (bool e, seq(double[N]) o) {
                e = Identity(d)  p = Sin(x)  o = SequenceInsert(v, p) }>
            y = ConcatFromSequence<axis = 0>(s) }"""
    )
    with pytest.raises(UnsupportedOperatorError, match="ConcatFromSequence"):
        vjp(model, ["x"], ["y"])


class Recurrence(torch.nn.Module):
    """A loop over time with a branch that the values decide."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros_like(x[0])
        for k in range(x.size(0)):
            if bool(h.sum() > 0.5):  # noqa: SIM108
                h = torch.tanh(h * 0.5 + x[k])
            else:
                h = torch.sin(h + x[k] * 2)
        return h


@pytest.mark.filterwarnings("ignore")
def test_scripted_loop_of_pytorch() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    file = io.BytesIO()
    scripted, names = torch.jit.script(Recurrence()), {"input_names": ["x"], "output_names": ["y"]}
    axes = {"x": {0: "time"}}
    torch.onnx.export(scripted, (x,), file, opset_version=13, dynamic_axes=axes, dynamo=False, **names)
    gradient = vjp(onnx.load_from_string(file.getvalue()), ["x"], ["y"])
    for steps in (6, 2):
        x = torch.randn(steps, 3, requires_grad=True)
        y = Recurrence()(x)
        (expected,) = torch.autograd.grad(y, x, torch.ones_like(y))
        feeds = {"x": x.detach().numpy(), "y.cotangent": np.ones(3, np.float32)}
        *_, got = run_onnxruntime(gradient, feeds)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def nested(depth: int) -> str:
    """Loops inside loops, each of which multiplies by what the inner one gives."""
    inner = "o0 = Sin(x)"
    for k in range(1, depth + 1):
        inner = (
            f"o{k} = Loop(n, , x)<body = b{k} (int64 i{k}, bool d{k}, double[N] v{k}) => (bool f{k}, "
            f"double[N] w{k}) {{ f{k} = Identity(d{k})  {inner}  w{k} = Mul(o{k - 1}, v{k}) }}>"
        )
    return f"m (int64 n, double[N] x) => (double[N] o{depth}) {{ {inner} }}"


def test_nesting_costs_no_powers() -> None:
    """A body is written out again once for each graph around it."""
    check(nested(3), n=np.array(2), x=0.5 * np.abs(drawn(2)))
    small, large = (vjp(parsed(nested(k)), ["x"], [f"o{k}"]).ByteSize() for k in (4, 8))
    assert large < 4.5 * small
