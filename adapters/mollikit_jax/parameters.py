from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from mollikit.oracles import Array

# The collection in which Flax's linen keeps running statistics.
_STATISTICS = "batch_stats/"


@dataclass(frozen=True)
class Parameters:
    """A pytree of parameters, of which the floating leaves may be replaced by name.

    Attributes
    ----------
    names : tuple of str
        Of the leaves: the path through the tree, joined by "/", such as ``params/Dense_0/kernel``.
    leaves : tuple
        Arrays, and whatever else the tree holds.
    structure : PyTreeDef
    fixed : tuple of str
        Names, or beginnings of names, of what is not learnt: running statistics.
    """

    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    structure: Any
    fixed: tuple[str, ...] = ()

    @classmethod
    def of(cls, tree: Any) -> Parameters:
        """Take a tree apart; its leaves are shared."""
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
        coarse, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_statistic)
        fixed = (_name(path) + "/" for path, node in coarse if _is_statistic(node))
        leaves = tuple(jnp.asarray(leaf) if _is_array(leaf) else leaf for _, leaf in paths)
        return cls(tuple(_name(path) for path, _ in paths), leaves, structure, (_STATISTICS, *fixed))

    @property
    def arrays(self) -> dict[str, Any]:
        """The leaves that are arrays, by name: what a traced function takes as an argument."""
        return {n: leaf for n, leaf in zip(self.names, self.leaves, strict=True) if _is_array(leaf)}

    @property
    def learnt(self) -> dict[str, Any]:
        """The arrays of floats that are no running statistics, by name."""
        floats = {n: a for n, a in self.arrays.items() if jnp.issubdtype(a.dtype, jnp.floating)}
        return {name: a for name, a in floats.items() if not name.startswith(self.fixed)}

    def tree(self, arrays: Mapping[str, Any]) -> Any:
        """Return the tree with these arrays in the place of its own."""
        leaves = [arrays.get(name, leaf) for name, leaf in zip(self.names, self.leaves, strict=True)]
        return jax.tree_util.tree_unflatten(self.structure, leaves)

    def replaced(self, weights: Mapping[str, Array]) -> Parameters:
        """Return the parameters with these weights in the place of their own.

        Raises
        ------
        ValueError
            There is no such weight, or it has another shape.
        """
        own = self.learnt
        for name, values in weights.items():
            if name not in own:
                raise ValueError(f"there is no weight {name!r}: there are {list(own)}")
            if np.shape(values) != own[name].shape:
                raise ValueError(
                    f"weight {name!r} has the shape {own[name].shape} and got {np.shape(values)}"
                )
        leaves = tuple(
            jnp.asarray(weights[name], leaf.dtype) if name in weights else leaf
            for name, leaf in zip(self.names, self.leaves, strict=True)
        )
        return replace(self, leaves=leaves)

    def digest(self) -> str | None:
        """Sha256 of the arrays' names and values, in hexadecimal; None where there are none."""
        sha = hashlib.sha256()
        for name, values in self.arrays.items():
            key = jnp.issubdtype(values.dtype, jax.dtypes.prng_key)
            array = np.asarray(jax.random.key_data(values) if key else values)
            sha.update(f"{name} {array.dtype} {array.shape}".encode())
            sha.update(array.tobytes())
        return sha.hexdigest() if self.arrays else None


def is_tree(function: Any) -> bool:
    """Whether a callable is itself a pytree with arrays in it, as modules of Equinox and Flax's nnx are."""
    leaves, structure = jax.tree_util.tree_flatten(function)
    return not jax.tree_util.treedef_is_leaf(structure) and any(map(_is_array, leaves))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_statistic(node: Any) -> bool:
    # Flax's nnx marks them by a class of variables, which is known by its name where Flax is not imported.
    return any(cls.__name__ == "BatchStat" for cls in type(node).__mro__)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
