from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mollikit.estimators.answers import Answer, answers_of, by_points
from mollikit.estimators.base import Setting
from mollikit.estimators.tallies import tally_of_points
from mollikit.estimators.weights import WeightPerturbation
from mollikit.moments import Tally
from mollikit.oracles import GradientOracle
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

    Rows of a batch are asked about one after the other under each model, which is drawn once for all of them.
    A call holds inputs of one row under one model, at most ``rows`` of them.
    """

    settings: Sequence[Setting]
    weights: WeightPerturbation
    rows: int

    def __call__(self, numbers: Sequence[int], start: int, stop: int) -> list[Tally]:
        asked = [
            _Row(alike, start, stop, self.rows) for alike in by_points([self.settings[k] for k in numbers])
        ]
        first = self.settings[0]
        for model in self.weights.models(first.oracle.weights, first.key, start, stop):
            own: Any = None
            oracle: Any = None
            for row in asked:
                if row.oracle is not own:  # rows explain one thing, or each its own
                    own = row.oracle
                    oracle = own.reweighted(model)
                row.ask(oracle)
            del model, oracle  # before the next is drawn: one replica at a time
        return [tally for row in asked for tally in row.tallies()]


class _Row:
    """One input in a block of groups: its own points, and what the models have answered about its targets."""

    def __init__(self, settings: Sequence[Setting], start: int, stop: int, rows: int) -> None:
        setting, p = settings[0], settings[0].perturbation
        self._settings, self._start, self._stop = settings, start, stop
        assert setting.inputs_per_model is not None
        self._per_model = setting.inputs_per_model
        self._rows, self._models = min(rows, self._per_model), 0
        self._steps = np.zeros(((stop - start) * setting.group_size, 0), p.base.dtype)
        if p.dimension:
            groups = setting.key.groups(setting.sampler, start, stop, p.shape, p.base.dtype, p.view)
            self._steps = p.steps(groups)
        self._importance = p.weights(self._steps)
        self._found: list[list[Answer]] = []

    @property
    def oracle(self) -> Any:
        """What is asked, with the model's own weights."""
        return self._settings[0].oracle

    def ask(self, oracle: GradientOracle) -> None:
        """Ask the next model for the gradients at the inputs that belong to it."""
        own = self._steps[self._models * self._per_model :][: self._per_model]
        self._models += 1
        for first in range(0, len(own), self._rows):
            part = own[first : first + self._rows]
            found = answers_of(self._settings, oracle, part, self._rows)
            self._found.append([(v if v is None else v[: len(part)], g[: len(part)]) for v, g in found])

    def tallies(self) -> list[Tally]:
        """Tally what the models have answered, about each target."""
        return [
            self._tally(setting, parts)
            for setting, parts in zip(self._settings, zip(*self._found, strict=True), strict=True)
        ]

    def _tally(self, setting: Setting, parts: Sequence[Answer]) -> Tally:
        values = [value for value, _ in parts if value is not None]
        return tally_of_points(
            setting,
            self._start,
            self._stop,
            np.concatenate([gradient for _, gradient in parts]),
            np.concatenate(values) if len(values) == len(parts) else None,
            self._importance,
        )
