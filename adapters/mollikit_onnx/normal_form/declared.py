from __future__ import annotations

from onnx import ModelProto, TensorShapeProto

from mollikit_onnx.normal_form.folding import with_types


def without_stale(model: ModelProto) -> ModelProto:
    """Correct, in place, the declared shapes that contradict what follows from the inputs.

    Tools that change a graph leave such behind. What inference cannot tell stays as it is declared.
    """
    graph = model.graph
    declared = [v for v in (*graph.value_info, *graph.output) if v.type.tensor_type.HasField("shape")]
    if not declared:
        return model
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = with_types(bare).graph
    types = {v.name: v.type.tensor_type for v in (*inferred.value_info, *inferred.output)}
    symbols = {dim.dim_param for v in graph.input for dim in v.type.tensor_type.shape.dim} - {""}
    for value in declared:
        kind, given = types.get(value.name), value.type.tensor_type.shape
        if kind is not None and kind.HasField("shape") and _contradict(given, kind.shape, symbols):
            given.CopyFrom(kind.shape)
    return model


def _contradict(given: TensorShapeProto, found: TensorShapeProto, symbols: set[str]) -> bool:
    return len(given.dim) != len(found.dim) or any(
        g.HasField("dim_value")
        and (f.dim_param in symbols or (f.HasField("dim_value") and f.dim_value != g.dim_value))
        for g, f in zip(given.dim, found.dim, strict=True)
    )
