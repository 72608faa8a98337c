"""Which nodes of a model's gradient have no CUDA kernel in ONNX Runtime, so that they would run on the CPU.

    python benchmarks/cuda_kernels.py OperatorKernels.md model.onnx [model.onnx ...]

The first file is docs/OperatorKernels.md of microsoft/onnxruntime. Told without a GPU, by operator, version
and types alone, before ONNX Runtime's own rewriting. Not told: which nodes ONNX Runtime leaves on the CPU by
choice (arithmetic on shapes), and whether a kernel takes a node's attributes.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import onnx
from mollikit_onnx import OnnxOracle, pruned, vjp
from mollikit_onnx.runtime.selection import select_in_graph
from onnx import TensorProto, shape_inference

Kernel = tuple[int, int, list[list[set[str]]]]  # first and last version, types by input of each signature


def kernels(page: str) -> dict[str, list[Kernel]]:
    """The CUDA kernels of the default domain by operator."""
    section = page.split("implemented by CUDAExecutionProvider")[1].split("com.microsoft")[0]
    found: dict[str, list[Kernel]] = {}
    name = ports = ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if line.startswith("|||") and name:
            cells = ["", "", *(cell.strip() for cell in line[3:].strip("|").split("|"))]
        if len(cells) != 4 or not re.match(r"\[?\d", cells[2]):
            continue
        name, ports = cells[0] or name, cells[1] or ports
        versions = [int(number) for number in re.findall(r"\d+", cells[2])]
        last = 10**6 if cells[2].endswith("+") else versions[-1]
        constraints = dict(re.findall(r"\*\*(\w+)\*\* = ([^*]*)", cells[3].replace("<br/>", "")))
        signatures = []
        for signature in ports.split("or<br>"):
            taken = re.findall(r"\*in\* \w[\w.]*:\*\*([^*]+)\*\*", signature)
            # The page leaves out the types of some axes: an empty set takes any.
            signatures.append([set(re.findall(r"\w+\(\w+\)", constraints.get(t, t))) for t in taken])
        found.setdefault(name, []).append((versions[0], last, signatures))
    return found


def has_kernel(
    node: onnx.NodeProto, opset: int, types: dict[str, str], known: dict[str, list[Kernel]]
) -> bool:
    """Whether a CUDA kernel takes the node's inputs."""
    version = onnx.defs.get_schema(node.op_type, opset).since_version
    for first, last, signatures in known.get(node.op_type, ()):
        for taken in signatures if first <= version <= last else ():
            given = [types.get(name) for name in node.input]
            allowed = [*taken, *[taken[-1]] * (len(given) - len(taken))] if taken else [set()] * len(given)
            if all(not (kind and want) or kind in want for kind, want in zip(given, allowed, strict=False)):
                return True
    return False


def report(path: Path, known: dict[str, list[Kernel]]) -> str:
    """A row of the table: nodes, and those without a kernel by operator and type of the first input."""
    blueprint = OnnxOracle(path, target=0)._sessions.blueprint
    gradient = vjp(onnx.load(path), list(blueprint.wrt), [blueprint.output.name])
    wanted = [f"{name}.gradient" for name in blueprint.wrt]
    graph = shape_inference.infer_shapes(pruned(select_in_graph(gradient, blueprint.output), wanted)).graph
    types = {t.name: t.data_type for t in graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
    names = {k: f"tensor({TensorProto.DataType.Name(t).lower()})" for k, t in types.items() if t}
    opset = next(o.version for o in gradient.opset_import if not o.domain)
    without = Counter(
        f"{node.op_type} of {names.get(node.input[0], '?')}"
        for node in graph.node
        if node.op_type != "Constant" and not has_kernel(node, opset, names, known)
    )
    listed = ", ".join(f"{n} {what}" for what, n in without.most_common()) or "none"
    return f"| {path.stem} | {len(graph.node)} | {listed} |"


if __name__ == "__main__":
    page, *models = sys.argv[1:]
    table = kernels(Path(page).read_text(encoding="utf-8"))
    print("| model | nodes of the gradient | without a CUDA kernel |\n| --- | --- | --- |")
    for model in models:
        print(report(Path(model), table))
