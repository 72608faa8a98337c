"""Models that hang or end the process that reads them: each is refused, in a process of its own here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mollikit_onnx import ModelError, OnnxOracle, vjp
from mollikit_onnx.normal_form.validity import check_nodes
from onnx import AttributeProto, ModelProto, TensorProto, helper, load, numpy_helper, parser, save

SECONDS, BYTES = 60, 8 * 2**30
HUGE = 2**62


def graph_of(*nodes, shape=("n", 4), opset=18, functions=(), **constants) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid("f", 1)] * bool(functions)
    graph = helper.make_graph(list(nodes), "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def one(op_type, *inputs, shape=("n", 4), opset=18, constants=None, **attributes) -> ModelProto:
    node = helper.make_node(op_type, inputs or ["x"], ["y"], **attributes)
    return graph_of(node, shape=shape, opset=opset, **constants or {})


def einsum_in_a_branch() -> ModelProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    bad, good = (
        helper.make_graph([helper.make_node("Einsum", ["x"], ["z"], equation=text)], "branch", [], [value])
        for text in ("......->i", "ij->i")
    )
    return graph_of(helper.make_node("If", ["c"], ["y"], then_branch=bad, else_branch=good), c=True)


def einsum_in_a_function() -> ModelProto:
    body = [helper.make_node("Einsum", ["a"], ["b"], equation="......->i")]
    function = helper.make_function("f", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    return graph_of(helper.make_node("F", ["x"], ["y"], domain="f"), functions=[function])


def strides_of_a_shape(step: int, *, constant: bool = False) -> ModelProto:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one", "zero", "step"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["y"]),
    ]
    zero, one = np.array([0]), np.array([1])
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["step"], value_ints=[step]))
        return graph_of(*nodes, shape=(3, 4), zero=zero, one=one)
    return graph_of(*nodes, shape=(3, 4), zero=zero, one=one, step=np.array([step]))


def step_of_a_function(step: int) -> ModelProto:
    """Its caller has the step, under another name."""
    body = [helper.make_node("Slice", ["a", "zero", "zero", "zero", "by"], ["b"])]
    function = helper.make_function("f", "F", ["a", "zero", "by"], ["b"], body, [helper.make_opsetid("", 18)])
    call = helper.make_node("F", ["x", "zero", "step"], ["y"], domain="f")
    return graph_of(call, functions=[function], zero=np.array([0]), step=np.array([step]))


def nothing_inside(*, constant: bool = False) -> ModelProto:
    empty = TensorProto(name="k", data_type=TensorProto.INT64, dims=[1])
    nodes = [helper.make_node("Constant", [], ["k"], value=empty)] * constant
    model = graph_of(*nodes, helper.make_node("Reshape", ["x", "k"], ["y"]))
    model.graph.initializer.extend([empty] * (not constant))
    return model


IMAGE = ("n", 4, 8, 8)
KERNEL = {"w": np.ones((4, 4, 3, 3), np.float32)}
NODES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "ellipses": (lambda: one("Einsum", equation="......->i"), "Einsum, node 'y', is not valid: its equation"),
    "dots": (lambda: one("Einsum", equation="i.j->ij"), "equation 'i.j->ij'"),
    "an ellipsis twice": (lambda: one("Einsum", equation="i...->i......"), "equation"),
    "a letter of none": (lambda: one("Einsum", equation=". . .->i"), "equation '...->i'"),
    "long": (lambda: one("Einsum", equation="a" * 1_000_000 + "."), "equation 'aaa"),
    "in a branch": (einsum_in_a_branch, "Einsum, node 'z'"),
    "in a function": (einsum_in_a_function, "Einsum, node 'b'"),
    "no equation": (lambda: one("Einsum"), "attribute 'equation' is missing"),
    "step": (lambda: strides_of_a_shape(HUGE), "Slice, node 't', is not valid: its step"),
    "last step": (lambda: strides_of_a_shape(-(2**63)), "its step"),
    "step of a Constant": (lambda: strides_of_a_shape(HUGE, constant=True), "its step"),
    "step of a function": (lambda: step_of_a_function(HUGE), "Slice, node 'b', is not valid: its step"),
    "no elements": (nothing_inside, "'k' of shape (1,) does not hold its elements"),
    "a Constant of none": (lambda: nothing_inside(constant=True), "'k' of shape (1,) does not hold"),
    "text for axes": (lambda: one("ReduceMax", axes="text", opset=11), "attribute 'axes' is missing, or of"),
    "number for pads": (lambda: one("Pad", pads=0, opset=8), "attribute 'pads'"),
    "blocks": (lambda: one("DepthToSpace", blocksize=HUGE, shape=IMAGE), "'blocksize' is not from 1 to 2147"),
    "groups": (lambda: one("ConvTranspose", "x", "w", group=0, shape=IMAGE, constants=KERNEL), "'group'"),
    "strides": (lambda: one("MaxPool", kernel_shape=[2, 2], strides=[0, 1], shape=IMAGE), "'strides'"),
    "heads": (lambda: one("Attention", *"xxx", q_num_heads=0, shape=("n", 3, 4), opset=23), "'q_num_heads'"),
    "inputs": (lambda: one("Conv", "x", shape=IMAGE), r"at least 2 inputs and at most 3, and has ['x']"),
    "nothing for an input": (lambda: one("MatMul", "x", ""), "and has ['x', '']"),
    "no output": (lambda: graph_of(helper.make_node("Relu", ["x"], [])), "Relu, node '', is not valid"),
    "no branches": (lambda: graph_of(helper.make_node("If", ["c"], ["y"]), c=True), "_branch' is missing"),
    "version": (lambda: one("Relu", opset=HUGE), f"no version {HUGE}"),
}  # fmt: skip
NAMES: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "a cycle": (
        lambda: graph_of(helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Sin", ["y"], ["z"])),
        "tensor 'z' is read before any node makes it",
    ),
    "itself": (lambda: one("Add", "x", "y"), "tensor 'y' is read before"),
    "nowhere": (lambda: one("Relu", "nowhere"), "tensor 'nowhere'"),
    "no result": (lambda: graph_of(helper.make_node("Relu", ["x"], ["z"])), "tensor 'y'"),
    "twice": (
        lambda: graph_of(helper.make_node("Sin", ["x"], ["y"]), helper.make_node("Cos", ["x"], ["y"])),
        "tensor 'y' is made 2 times",
    ),
}


def told() -> Iterator[tuple[str, str]]:
    """What is said about each model, by the gradient and by the oracle."""
    for name, (model, _) in {**NODES, **NAMES}.items():
        for how in (lambda model: vjp(model, ["x"], ["y"]), OnnxOracle):
            try:
                how(model())
                yield name, "accepted"
            except ModelError as error:
                yield name, str(error)


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    code = (
        "import json, resource\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({BYTES}, {BYTES}))\n"
        "from tests.onnx.test_hostile import told\n"
        "for pair in told(): print(json.dumps(pair), flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, message = json.loads(line)
        found.setdefault(name, []).append(message)
    assert done.returncode == 0, f"{list(found)[-1:]} was the last: {done.stderr[-500:]}"
    return found


@pytest.mark.parametrize("name", NODES)
def test_nodes_that_hang_or_crash_what_reads_them(name, said) -> None:
    by_gradient, by_oracle = said[name]
    assert NODES[name][1] in by_gradient
    assert NODES[name][1] in by_oracle


@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_are_not_there(name, said) -> None:
    assert NAMES[name][1] in said[name][0]


@pytest.mark.parametrize(
    "equation",
    ["ij->i", "ij->ji", "ii", "...->...", "i...->...i", " i j -> i ", "...", "", "->", "ij", "Ij->I"],
)
def test_equations_are_equations(equation) -> None:
    check_nodes(one("Einsum", equation=equation))


def test_what_is_no_business_of_the_checks() -> None:
    """Attributes of one's own operators, and those that a function takes from its caller."""
    own = helper.make_node("Own", ["x"], ["y"], domain="acme", size=0, strides=[0], equation="......")
    check_nodes(graph_of(own))
    inside = helper.make_node("Conv", ["a", "w"], ["b"])
    inside.attribute.add(name="group", type=AttributeProto.INT, ref_attr_name="groups")
    einsum = helper.make_node("Einsum", ["b"], ["c"])
    einsum.attribute.add(name="equation", type=AttributeProto.STRING, ref_attr_name="text")
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function(
        "f", "F", ["a", "w"], ["c"], [inside, einsum], imports, attributes=["groups", "text"]
    )
    call = helper.make_node("F", ["x", "w"], ["y"], domain="f", groups=2, text="nchw->nc")
    weight = np.ones((4, 2, 3, 3), np.float32)
    gradient = vjp(graph_of(call, shape=IMAGE, functions=[function], w=weight), ["x"], ["y"])
    assert {"Conv", "Einsum"} <= {node.op_type for node in gradient.graph.node}
    call.attribute[1].s = b"......->n"
    with pytest.raises(ModelError, match="its equation"):
        vjp(graph_of(call, shape=IMAGE, functions=[function], w=weight), ["x"], ["y"])


SCOPES = {
    "functions": """<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
        m (float[n, 8] x) => (float[n, 4] y) { a = f.B(x)  y = f.A(a) }
        <opset_import: ["" : 18], domain: "f"> A (x) => (y) { s = Constant<value_ints = [0]>()
            c = Constant<value_ints = [9223372036854775807]>()  y = Slice(x, s, c) }
        <opset_import: ["" : 18], domain: "f"> B (x) => (y) { s = Constant<value_ints = [0]>()
            e = Constant<value_ints = [8]>()  a = Constant<value_ints = [1]>()
            c = Constant<value_ints = [2]>()  y = Slice(x, s, e, a, c) }""",
    "branches": """<ir_version: 8, opset_import: ["" : 18]>
        m (float[n, 8] x, bool b) => (float[n, k] y) <int64[1] s = {0}, int64[1] a = {1}, int64[1] e = {8}> {
        y = If(b) <then_branch = g () => (float[n, k] z) <int64[1] c = {9223372036854775807}> {
            z = Slice(x, s, c, a) }, else_branch = h () => (float[n, k] z) <int64[1] c = {2}> {
            z = Slice(x, s, e, a, c) }> }""",
    "left out": """<ir_version: 8, opset_import: ["" : 18]>
        m (float[n, 8] x) => (float[n, 8] y) <int64[1] s = {0}, int64[1] a = {1}, int64[1] e = {8}> {
        d, "" = Dropout<seed = 9223372036854775807>(x)  y = Slice(d, s, e, a, "") }""",
}


@pytest.mark.parametrize("names", SCOPES)
def test_a_large_number_is_one_where_its_name_holds(names) -> None:
    """It may be the end of a Slice, where another graph has a step of that name."""
    vjp(parser.parse_model(SCOPES[names]), ["x"], ["y"])
    vjp(step_of_a_function(2), ["x"], ["y"])


def test_a_number_in_a_data_file_is_not_looked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = one("ReduceSum", "x", "a", constants={"a": np.array([1])})
    path = str(tmp_path / "away" / "m.onnx")
    Path(path).parent.mkdir()
    save(model, path, save_as_external_data=True, size_threshold=0)
    vjp(load(path, load_external_data=False), ["x"], ["y"])


def test_nothing_inside_of_an_old_model() -> None:
    """What is done after onnx's converter reads constants of any shape."""
    model = nothing_inside()
    model.opset_import[0].version, model.graph.initializer[0].dims[0] = 9, 2
    with pytest.raises(ModelError, match=r"'k' of shape \(2,\) does not hold its elements"):
        vjp(model, ["x"], ["y"])


def test_numbers_that_no_rule_can_take() -> None:
    model = one("Resize", "x", "", "s", constants={"s": np.array([1, np.inf], np.float32)})
    with pytest.raises(ModelError, match=r"operator Resize.*its numbers are not possible"):
        vjp(model, ["x"], ["y"])


def test_what_the_reference_cannot_compute_is_left_to_the_runtime() -> None:
    """A place beyond the end of a shape, and a sparse constant, which is fine."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "far"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["y"]),
    ]
    vjp(graph_of(*nodes, shape=(3, 4), far=np.array([HUGE])), ["x"], ["y"])
    values, places = (
        numpy_helper.from_array(np.array([k], t), "v") for k, t in ((2, np.float32), (1, np.int64))
    )
    sparse = helper.make_sparse_tensor(values, places, [4])
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    model = graph_of(*nodes)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]))
    _, gradient = OnnxOracle(model, target=1).value_and_gradient(np.ones((1, 4), np.float32))
    assert gradient.tolist() == [[0, 2, 0, 0]]
