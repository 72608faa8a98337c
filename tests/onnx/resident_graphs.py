"""Parts of a resident block's graph by themselves, on any provider."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.resident.draws import fresh, tied
from mollikit_onnx.resident.generator import key_of, normals
from onnx import helper

import mollikit as mk
from mollikit.engine.streams import Key
from tests.onnx.cuda import EXACT, needs_cuda

CPU = "CPUExecutionProvider"
every_provider = pytest.mark.parametrize(
    "provider", [CPU, pytest.param(*EXACT, marks=needs_cuda)], ids=["cpu", "cuda"]
)
SAMPLERS = (mk.Independent(), mk.Antithetic(), mk.Recentred(4))
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def computed(function, provider=CPU, **arrays):
    """What a function of handles gives for arrays, in a graph of its own."""
    graph = GraphBuilder({"": 18}, {}, {}, set(arrays))
    graph.scope = "test"
    given = {
        name: graph.declare(
            name, helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        )
        for name, array in arrays.items()
    }
    made = function(**given)
    outputs = made if isinstance(made, list) else [made]
    names = {name for node in graph.nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "test",
            [helper.make_value_info(name, graph.type_of(name)) for name in arrays],
            [helper.make_tensor_value_info(y.name, y.dtype, None) for y in outputs],
            graph.constant_protos(names),
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    found = session.run(None, arrays)
    return found if isinstance(made, list) else found[0]


def groups_of_normals(sampler, start, stop, dimension, seed=3, item=0, dtype=np.float32, provider=CPU):
    """As a block draws them (groups, points, dimension)."""
    per_group = fresh(sampler) * dimension
    per_group += per_group % 2

    def drawn(counter, count, key, groups):
        z = normals(counter, count, key, groups, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        z = z.op("Slice", [0], [fresh(sampler) * dimension], [1])
        return tied(sampler, z.reshaped(groups, fresh(sampler), dimension))

    return computed(
        drawn,
        provider,
        counter=np.array([start * per_group], np.uint64),
        count=np.array((stop - start) * per_group),
        key=np.array([key_of(Key(seed, item))], np.uint64),
        groups=np.array([stop - start]),
    )
