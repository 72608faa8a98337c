from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit.estimators.answers import answers
from mollikit.estimators.base import Setting
from mollikit.estimators.tallies import tally_of_points
from mollikit.estimators.weights import ModelGroup, WeightPerturbation
from mollikit.moments import Tally
from mollikit.pointsets import Normals, PointSet, Uniforms
from mollikit.samplers import Sampler


@dataclass(frozen=True)
class Nested(Sampler):
    """Inputs under a group of models: all the points that share a draw of the weights lie in one group.

    Groups of inputs of the sampler inside follow each other, whole, under each model.

    Parameters
    ----------
    sampler : Sampler
        Of the inputs.
    models : int
        In a group.
    inputs : int, optional
        Under each model; one group of the sampler by default.
    """

    sampler: Sampler
    models: int
    inputs: int | None = None

    @property
    def biased(self) -> bool:  # type: ignore[override]  # a matter of the sampler inside, not of the class
        """Whether the sampler inside is."""
        return self.sampler.biased

    @property
    def fewest_groups(self) -> int:  # type: ignore[override]  # likewise
        """Groups that the sampler inside needs for an error bar."""
        return self.sampler.fewest_groups

    def per_model(self, dimension: int) -> int:
        """Inputs under each model."""
        return self.inputs or self.sampler.group_size(dimension)

    def group_size(self, dimension: int) -> int:
        return self.models * self.per_model(dimension)

    def check(self, dimension: int) -> None:
        self.sampler.check(dimension)
        size, wanted = self.sampler.group_size(dimension), self.per_model(dimension)
        if wanted % size:
            raise ValueError(
                f"inputs_per_model={wanted} is not a number of whole groups of {self.sampler!r}, of {size} "
                f"points each: give {-(-wanted // size) * size}, or another sampler"
            )

    def check_grid(self, shape: tuple[int, ...]) -> None:
        self.sampler.check_grid(shape)

    def draw(
        self,
        rng: np.random.Generator,
        groups: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        view: type[Normals] | type[Uniforms],
    ) -> PointSet:
        dimension = int(np.prod(shape))
        count = self.group_size(dimension) // self.sampler.group_size(dimension)
        drawn = self.sampler.draw(rng, groups * count, shape, dtype, view)
        return type(drawn)(drawn.values.reshape(groups, -1, *shape))


@dataclass(frozen=True)
class NestedTask:
    """Draw models, ask each for the gradients at the inputs that belong to it, and tally the groups' means.

    A call holds inputs under one model, at most ``rows`` of them.
    """

    setting: Setting
    weights: WeightPerturbation
    rows: int

    def __call__(self, start: int, stop: int) -> Tally:
        s, p = self.setting, self.setting.perturbation
        per_model = s.inputs_per_model
        assert per_model is not None
        steps = np.zeros(((stop - start) * s.group_size, 0), p.base.dtype)
        if p.dimension:
            steps = p.steps(s.key.groups(s.sampler, start, stop, p.shape, p.base.dtype, p.view))
        importance = p.weights(steps)
        gradients: list[NDArray[Any]] = []
        values: list[NDArray[Any]] = []
        weights, inner, number = s.oracle.weights, min(self.rows, per_model), 0
        for group in range(start, stop):
            models = self.weights.group(weights, s.key, group)
            for member in range(self.weights.group_size):
                own = steps[number * per_model : (number + 1) * per_model]
                self._ask(models, member, own, inner, gradients, values)
                number += 1
        return tally_of_points(
            s,
            start,
            stop,
            np.concatenate(gradients),
            np.concatenate(values) if len(values) == len(gradients) else None,
            importance,
        )

    def _ask(
        self,
        models: ModelGroup,
        member: int,
        steps: NDArray[Any],
        rows: int,
        gradients: list[NDArray[Any]],
        values: list[NDArray[Any]],
    ) -> None:
        """Ask one model, which is forgotten before the next is drawn."""
        oracle = self.setting.oracle.reweighted(models.model(member))
        for first in range(0, len(steps), rows):
            part = steps[first : first + rows]
            value, gradient = answers(self.setting, oracle, part, rows)
            gradients.append(gradient[: len(part)])
            if value is not None:
                values.append(value[: len(part)])
