from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of an estimate: nothing that was computed is lost.

    Parameters
    ----------
    partial : Estimate, BiasedEstimate, TwoLevelEstimate or None
        The estimate over the blocks that were finished, in order, or over the folds; None where they say
        nothing yet: before there were two groups, three folds, or both pilots.
    completed : sequence of Estimate
        Of a batch the rows, of several targets the targets, that were finished before.
    under_way : sequence of Estimate
        Of rows or targets that advance together, the partial estimates of those that were not finished, of
        which ``partial`` is the first; ``provenance["item"]`` or ``provenance["target"]`` tells them apart.
    """

    def __init__(self, partial: Any, completed: Sequence[Any] = (), under_way: Sequence[Any] = ()) -> None:
        told = "before there was anything to keep"
        if partial is not None:
            told = f"after {round(partial.n_evaluations)} evaluations; what was computed is in .partial"
        super().__init__(f"interrupted {told}")
        self.partial = partial
        self.completed = tuple(completed)
        self.under_way = tuple(under_way) or (() if partial is None else (partial,))

    def __reduce__(self) -> tuple[type[Interrupted], tuple[Any, ...]]:
        return type(self), (self.partial, self.completed, self.under_way)


@contextmanager
def with_nothing_to_keep() -> Iterator[None]:
    """Make of a Ctrl-C an `Interrupted` that carries nothing, whatever it carried."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(None) from None
