from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.engine.streams import Key
from mollikit.kernels import Law
from mollikit.oracles import Array
from mollikit.pointsets import PointSet
from mollikit.samplers import Antithetic, Independent, Recentred, Sampler
from mollikit.scales import NothingMovesError

# A law for all weights, or laws by name pattern, of which the first that matches decides; None holds.
WeightLaws = Law | Mapping[str, Law | None]

# A group's points are drawn once and held up to this many values (256 MB in single precision); beyond,
# they are drawn again for each of its members, so that a sample never takes more than one replica.
_HELD = 1 << 26


@dataclass(frozen=True)
class WeightPerturbation:
    """The weights of a model that move, with their laws: it draws models of the same form.

    It holds no tensors. A draw takes the model's own at the time, one after the other, so that a sample
    takes the memory of one replica of the weights that move, and that of the largest tensor's group.

    Attributes
    ----------
    laws : tuple of (str, Law)
        By the weights' names.
    sampler : Sampler
        `Independent`, `Antithetic` or `Recentred`: a tensor is drawn by itself.
    size : int
        Coordinates of these weights.
    told : str or dict of str
        The laws as they were given, with their patterns.
    """

    laws: tuple[tuple[str, Law], ...]
    sampler: Sampler
    size: int
    told: str | dict[str, str]

    @classmethod
    def of(cls, weights: Mapping[str, Array], laws: WeightLaws, sampler: Sampler) -> WeightPerturbation:
        """Choose the weights by the patterns and resolve their scales once, to see that they can be.

        Weights whose widths are all zero, such as a bias of zeros under ``OfMagnitude``, are left alone.

        Raises
        ------
        TypeError
            If what is given is no kernel.
        ValueError
            If a pattern matches no weight, no weight would move, or a scale does not suit a weight.
        """
        if not isinstance(sampler, Independent | Antithetic | Recentred):
            raise ValueError(
                f"weights are drawn tensor by tensor, where the structure of {sampler!r} across coordinates "
                "would be lost: give weights_sampler=Independent(), Antithetic() or Recentred()"
            )
        moving, size, still = [], 0, ""
        for name, law in _chosen(list(weights), laws):
            values = _checked(name, weights[name])
            try:
                law.widths(values)
                draws = law.at(values)
            except NothingMovesError as error:
                still = f": {error}"
                continue
            except ValueError as error:
                raise ValueError(f"weight {name!r}: {error}") from error
            if draws.effective_share < 1:
                raise ValueError(
                    f"weight {name!r}: {law!r} gives importance weights, which collapse over a model's "
                    "weights; give its kernel itself"
                )
            moving.append((name, law))
            size += values.size
        if not moving:
            raise ValueError(f"no weight would move{still}")
        told = {k: repr(law) for k, law in laws.items()} if isinstance(laws, Mapping) else repr(laws)
        return cls(tuple(moving), sampler, size, told)

    @property
    def group_size(self) -> int:
        """Models in an independent group."""
        return self.sampler.group_size(self.size)

    def group(self, weights: Mapping[str, Array], key: Key, group: int) -> ModelGroup:
        """Return a group of models around these weights.

        They depend on the seed, the names and the group, and not on the item: all rows of a batch see the
        same models.
        """
        return ModelGroup(self, weights, key, group)

    def models(
        self, weights: Mapping[str, Array], key: Key, start: int, stop: int
    ) -> Iterator[dict[str, Array]]:
        """Draw the models of groups start .. stop - 1, one after the other; none is held here."""
        for group in range(start, stop):
            together = self.group(weights, key, group)
            for member in range(self.group_size):
                yield together.model(member)

    def digest(self, weights: Mapping[str, Array]) -> str:
        """Sha256 of the names, values and widths of the weights that move, in hexadecimal."""
        digest = hashlib.sha256()
        for name, law in self.laws:
            digest.update(f"{name} {weights[name].dtype} {weights[name].shape}".encode())
            digest.update(np.ascontiguousarray(weights[name]).tobytes())
            digest.update(law.widths(weights[name]).tobytes())
        return digest.hexdigest()


class ModelGroup:
    """Models drawn together, to be had one at a time; the points that they share are held if they fit."""

    def __init__(
        self, perturbation: WeightPerturbation, weights: Mapping[str, Array], key: Key, group: int
    ) -> None:
        self._perturbation, self._weights, self._key, self._group = perturbation, weights, key, group
        self._fits = 1 < perturbation.group_size <= _HELD // perturbation.size
        self._held: dict[str, PointSet] = {}

    def model(self, member: int) -> dict[str, Array]:
        """Weights of one of them, by name: those that move."""
        return {
            name: _moved(self._weights[name], law, self._points(name, law), member)
            for name, law in self._perturbation.laws
        }

    def _points(self, name: str, law: Law) -> PointSet:
        if name in self._held:
            return self._held[name]
        values = self._weights[name]
        points = self._key.of_weights(
            self._perturbation.sampler,
            name,
            self._group,
            values.shape or (1,),
            np.promote_types(values.dtype, np.float32),
            law.at(values).view,
        )
        if self._fits:
            self._held[name] = points
        return points


def _chosen(names: list[str], laws: WeightLaws) -> Iterator[tuple[str, Law]]:
    if not names:
        raise ValueError(
            "this oracle shows no weights of floats: a plain function and a SavedModel keep theirs to "
            "themselves, and integers are not smoothed; give the model itself"
        )
    patterns = laws if isinstance(laws, Mapping) else {"*": laws}
    for pattern, law in patterns.items():
        if law is not None and not isinstance(law, Law):
            raise TypeError(
                f"weights {pattern!r} are to be smoothed by {law!r}, which is not a kernel: give "
                "Gaussian(OfMagnitude(0.2)) or another, or None to hold them"
            )
        if not any(fnmatchcase(name, pattern) for name in names):
            near = get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
            raise ValueError(
                f"no weight is named like {pattern!r}; among the {len(names)} there are {near}, and "
                "normalisation statistics are not among them"
            )
    for name in names:
        law = next((law for pattern, law in patterns.items() if fnmatchcase(name, pattern)), None)
        if law is not None:
            yield name, law


def _checked(name: str, weights: Array) -> NDArray[Any]:
    values = np.asarray(weights)
    if not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"weight {name!r} is of {values.dtype}, and only floats can be smoothed")
    if not np.isfinite(values).all():
        raise ValueError(f"weight {name!r} holds values that are NaN or infinite")
    return values


def _moved(values: Array, law: Law, drawn: PointSet, member: int) -> Array:
    """Return one tensor, moved by one of the points of a group (1, group_size, *shape)."""
    widths, draws = law.widths(values), law.at(values)
    exact, moving = np.promote_types(values.dtype, np.float32), widths > 0
    all_move = moving.all()
    points = drawn.values[0, member].reshape(values.shape)
    steps = draws.displacements(type(drawn)((points if all_move else points[moving]).reshape(1, -1)))[0]
    # Single precision holds the product; the sum rounds to the weights' own dtype.
    steps = steps.astype(exact, copy=False) * (widths if all_move else widths[moving]).ravel().astype(exact)
    if all_move:
        return np.asarray(values + steps.reshape(values.shape), values.dtype)
    moved = values.copy()
    moved[moving] = values[moving] + steps
    return moved
