from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.node import Node
from mollikit_onnx.graphs.pruning import names_read, nodes_needed
from mollikit_onnx.graphs.windows import Windows
from mollikit_onnx.mean_gates.chains import Chain
from mollikit_onnx.mean_gates.work import multiplications


@dataclass(frozen=True, eq=False)
class RectifiedLayer:
    """A ReLU of a model, with the pooling right behind it.

    Attributes
    ----------
    source, leaf, end : str
        What is rectified, what that gives, and the pooled tensor: the leaf itself where nothing pools it.
    windows : ndarray (W, k)
        The elements of the flat source that each element of ``end`` is the largest of.
    work : int
        Multiplications that lead to the source and those of the layers before it, for one row.
    """

    source: str
    leaf: str
    end: str
    windows: NDArray[np.intp]
    work: int


def windows_behind(
    chain: Chain, nodes: Sequence[NodeProto], graph: GraphBuilder, reached: Collection[str]
) -> tuple[str, NDArray[np.intp]] | None:
    """The end and the windows of a chain that is a ReLU and nothing else, or None where it is not."""
    sizes = graph.tensor(chain.leaf).sizes
    if [node.op_type for node in chain.nodes] != ["Relu"] or sizes is None:
        return None
    places = np.arange(np.prod(sizes)).reshape(sizes)
    readers = [node for node in nodes if chain.leaf in names_read(node)]
    if len(readers) == 1 and readers[0].op_type == "MaxPool" and len(readers[0].output) == 1:
        pool = Node(readers[0], graph, set(reached))
        windows = Windows.of(pool)
        apart = windows.strides == windows.kernel and windows.dilations == (1,) * len(windows.kernel)
        if apart and not windows.padded and pool.y.sizes is not None:
            return pool.y.name, _parted(places, windows.kernel, pool.y.sizes[2:])
    return chain.leaf, places.reshape(-1, 1)


def _parted(places: NDArray[np.intp], kernel: tuple[int, ...], out: tuple[int, ...]) -> NDArray[np.intp]:
    parts = []
    for start in product(*map(range, kernel)):
        cut = tuple(slice(a, a + k * m, k) for a, k, m in zip(start, kernel, out, strict=True))
        parts.append(places[(slice(None), slice(None), *cut)].ravel())
    return np.stack(parts, axis=1)


def rectified_layers(
    found: Mapping[str, Chain], nodes: Sequence[NodeProto], graph: GraphBuilder, reached: Collection[str]
) -> tuple[RectifiedLayer, ...]:
    """The rectified layers among chains, in the model's order."""
    layers: list[RectifiedLayer] = []
    for node in nodes:
        chain = found.get(node.output[0])
        if chain is not None and (seen := windows_behind(chain, nodes, graph, reached)) is not None:
            sources = [*(layer.source for layer in layers), chain.source]
            before, _ = nodes_needed(nodes, sources)
            work = multiplications(before, lambda name: graph.tensor(name).sizes)
            layers.append(RectifiedLayer(chain.source, chain.leaf, *seen, work))
    return tuple(layers)
