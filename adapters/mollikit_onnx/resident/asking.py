"""Blocks of Pathwise where the model lives: what goes into each run, and what its moments are merged to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from mollikit.estimators.base import Setting
from mollikit.kernels import Gaussian, Kernel
from mollikit.moments import Moments, Tally
from mollikit.oracles import Array
from mollikit.samplers import Independent
from mollikit_onnx.resident.design import (
    COUNTER,
    DIMENSION,
    END,
    FIRST,
    FRESH,
    GROUPS,
    KEY,
    LIVE,
    ROWS,
    STRETCHES,
    WORDS,
    Design,
    Leaf,
)
from mollikit_onnx.resident.draws import fresh, inner, table_of
from mollikit_onnx.resident.generator import key_of
from mollikit_onnx.resident.tallying import Answers, tally_of

# Outputs of a block's graph for what it takes, with the rows in the call, and under other weights if any.
Run = Callable[[Design, Mapping[str, Array], int, Mapping[str, Array] | None], Sequence[Array]]


def tallies(blocks: Sequence[ResidentBlocks], start: int, stop: int) -> list[Tally]:
    """Tally groups start .. stop - 1 of each; weights are drawn once for all."""
    setting = blocks[0].setting
    if setting.weights is None:
        return [tally for block in blocks for tally in block.tallies(start, stop)]
    found: list[list[Answers]] = [[Answers() for _ in block.settings] for block in blocks]
    for number, weights in enumerate(
        setting.weights.models(setting.oracle.weights, setting.key, start, stop)
    ):
        for block, answers in zip(blocks, found, strict=True):
            block.ask_about(answers, start, number, weights)
        del weights  # before the next is drawn
    return [
        answer.tally(block.setting, start, stop)
        for block, answers in zip(blocks, found, strict=True)
        for answer in answers
    ]


@dataclass(frozen=True)
class ResidentBlocks:
    """What asks about one input by its address; several settings differ in the held target alone.

    Attributes
    ----------
    settings : sequence of Setting
    rows : int
        In a block, or at most, under one draw of the weights, in a call.
    dtypes : mapping
        Of the inputs that the model is differentiated by.
    beside : mapping of array
        What the graph takes of targets and held arrays, one row of each.
    run : callable
    """

    settings: Sequence[Setting]
    rows: int
    dtypes: Mapping[str, np.dtype[Any]]
    beside: Mapping[str, Array]
    run: Run

    @property
    def setting(self) -> Setting:
        """What the settings have in common."""
        return self.settings[0]

    def tallies(self, start: int, stop: int) -> list[Tally]:
        """Tally groups start .. stop - 1, for each target; a block that is not full goes on with others."""
        point, count = start * self.setting.group_size, stop - start
        return [
            tally_of(self.setting, answer, start, stop)
            for answer in self._asked(point, self.rows, count, None)
        ]

    def ask_about(
        self, answers: Sequence[Answers], start: int, number: int, weights: Mapping[str, Array]
    ) -> None:
        """Ask a draw of the weights, of this number after those of group ``start``, about its points."""
        setting, count = self.setting, self.setting.inputs_per_model
        assert setting.weights is not None
        assert count is not None
        ends = (number + 1) % setting.weights.group_size == 0
        first, rows = start * setting.group_size + number * count, min(self.rows, count)
        for done in range(0, count, rows):
            found = self._asked(first + done, rows, min(rows, count - done), weights)
            for answer, moments in zip(answers, found, strict=True):
                answer.add(moments)
        if ends:
            for answer in answers:
                answer.end_group()

    def _asked(
        self, point: int, rows: int, live: int, weights: Mapping[str, Array] | None
    ) -> Iterator[list[Moments]]:
        """Moments of every leaf, view and value, for each target, in one run that begins with a point."""
        design = self._design
        feed = {**self._around, **self.beside, **self._address(point, rows, live)}
        parts = design.moments.parts()
        arrays = self.run(design, feed, rows, weights)
        found = [
            design.moments(live, **dict(zip(parts, arrays[j : j + len(parts)], strict=True)))
            for j in range(0, len(arrays), len(parts))
        ]
        each = len(found) // design.targets
        yield from (found[k * each :][:each] for k in range(design.targets))

    def _address(self, point: int, rows: int, live: int) -> dict[str, Array]:
        """Say which points are meant: whole groups of the sampler, from the one with the first, are drawn."""
        sampler = self._design.sampler
        size, drawn = sampler.group_size(1), fresh(sampler) * self.setting.perturbation.dimension
        group, first = divmod(point, size)
        groups, words = -(-(first + rows) // size), drawn + drawn % 2
        numbers = {ROWS: rows, FIRST: first, END: first + rows, LIVE: live, GROUPS: groups, FRESH: drawn}
        return {
            COUNTER: np.array([group * words % (1 << 64)], np.uint64),
            WORDS: np.array(groups * words, np.int64),
            **{name: np.array([number], np.int64) for name, number in numbers.items()},
        }

    @cached_property
    def _design(self) -> Design:
        s, p = self.setting, self.setting.perturbation
        sampler = inner(s.sampler) if p.dimension else Independent()
        return Design(
            leaves=tuple(leaf for leaf, _, _ in self._leaves),
            named=p.layout.leaves[0].name is not None,
            sampler=sampler,
            odd=bool(fresh(sampler) * p.dimension % 2),
            apart=s.weights is not None,
            views=tuple(s.views.values()),
            second=s.second_moments and s.weights is None,
            targets=len(self.settings),
        )

    @cached_property
    def _leaves(self) -> list[tuple[Leaf, slice, Kernel | None]]:
        """Leaves in their order, each with its place in the input and its kernel, where it moves."""
        p = self.setting.perturbation
        moving = iter([draws for draws, part in p.draws if part.start < part.stop])
        found = []
        for leaf in p.layout.leaves:
            place = slice(leaf.start, leaf.stop)
            name = next(iter(self.dtypes)) if leaf.name is None else leaf.name
            moves = int(np.count_nonzero(p.widths[place]))
            kernel: Any = next(moving) if moves else None
            tabulated = kernel is not None and not isinstance(kernel, Gaussian)
            whole = moves == leaf.stop - leaf.start
            own = Leaf(name, leaf.shape, self.dtypes[name], moves > 0, whole, tabulated)
            found.append((own, place, kernel))
        return found

    @cached_property
    def _around(self) -> dict[str, Array]:
        """What the graph takes of the clean input: vectors of its size, and the generator's key."""
        p, key = self.setting.perturbation, np.array([key_of(self.setting.key)], np.uint64)
        drawn = tensor_dtype_to_np_dtype(self._design.precision)
        given: dict[str, Array] = {KEY: key}
        stretches = []
        for leaf, place, kernel in self._leaves:
            clean, widths = p.base[place], p.widths[place]
            if kernel is None:
                given[leaf.of("clean")] = clean.astype(leaf.dtype).reshape(1, *leaf.shape)
                continue
            given[leaf.of("clean")] = clean[None].astype(drawn)
            given[leaf.of("widths")] = widths[None].astype(drawn)
            moves = widths > 0
            stretches.append(np.count_nonzero(moves))
            given[leaf.of("places")] = np.maximum(np.cumsum(moves, dtype=np.int64) - 1, 0)
            if leaf.tabulated:
                with np.errstate(over="ignore"):  # beyond what is ever drawn
                    given[leaf.of("table")] = table_of(kernel).astype(drawn)
        given[STRETCHES] = np.array(stretches, np.int64)
        given[DIMENSION] = np.array([p.dimension], np.int64)
        return given
