from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, helper

from mollikit.moments import Moments, SecondMoments
from mollikit.samplers import Sampler
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.tensor import Dimension, Tensor

# Inputs of a block's graph that say which points are meant: the generator's key and first counter, how many
# words and groups are drawn, and of them the first and the end of the rows, with how many of these count.
KEY, COUNTER, WORDS, GROUPS = (f"mollikit.{name}" for name in ("key", "counter", "words", "groups"))
ROWS, FIRST, END, LIVE = (f"mollikit.{name}" for name in ("rows", "first", "end", "live"))
# Coordinates that move: in all, by leaf, and fresh ones in a group.
DIMENSION, STRETCHES, FRESH = (f"mollikit.{name}" for name in ("dimension", "stretches", "fresh"))


@dataclass(frozen=True)
class Leaf:
    """An input that the model is differentiated by: its shape and type, and how it moves."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    moves: bool
    whole: bool  # all of its coordinates move
    tabulated: bool  # its kernel is another than the Gaussian

    def of(self, what: str) -> str:
        """Name of what a block's graph takes for this input: its clean values, widths, places or table."""
        return f"mollikit.{what}/{self.name}"


@dataclass(frozen=True)
class Design:
    """All that shapes the graph of a block; how many points it has, and around what, comes with each run.

    Attributes
    ----------
    leaves : tuple of Leaf
    named : bool
        Whether views see the leaves by name, or the only one as it is.
    sampler : Sampler
    odd : bool
        Whether a group has an odd number of fresh normals, which come in pairs.
    apart : bool
        Whether the moments are those of single points, under one draw of the weights: groups are formed of
        them elsewhere.
    views : tuple of View
    second : bool
        Whether the moments tell of the points inside the groups too.
    targets : int
    """

    leaves: tuple[Leaf, ...]
    named: bool
    sampler: Sampler
    odd: bool
    apart: bool
    views: tuple[Any, ...]
    second: bool
    targets: int

    @property
    def group_size(self) -> int:
        """Points of a group of which a mean is taken."""
        return 1 if self.apart else self.sampler.group_size(1)

    @property
    def moments(self) -> type[Moments]:
        """What comes back of each thing that is tallied."""
        return SecondMoments if self.second else Moments

    @property
    def precision(self) -> int:
        """The type in which points are drawn and moved."""
        wide = any(leaf.moves and leaf.dtype == np.float64 for leaf in self.leaves)
        return int(TensorProto.DOUBLE if wide else TensorProto.FLOAT)


def held_name(name: str) -> str:
    """Name of the input of a block's graph that takes the one row of what is held."""
    return f"mollikit.held/{name}"


class Inputs:
    """What the graph of a block takes, declared as it is asked for."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph
        self.declared: dict[str, TypeProto] = {}

    def take(self, name: str, dtype: int, shape: Sequence[Dimension] | None) -> Tensor:
        """Return the handle of an input; its shape is None where the rank is not known."""
        kind = helper.make_tensor_type_proto(dtype, shape)
        self.declared[name] = kind
        return self.graph.declare(name, kind)

    def number(self, name: str) -> Tensor:
        """Return the handle of an int64 vector of one."""
        return self.take(name, TensorProto.INT64, [1])
