from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mollikit.estimate import Estimate


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of an estimate: nothing that was computed is lost.

    Parameters
    ----------
    partial : Estimate or None
        The estimate over the blocks that were finished, in order; None before there were two groups.
    completed : sequence of Estimate
        Of a batch, the rows that were finished before.
    """

    def __init__(self, partial: Estimate | None, completed: Sequence[Estimate] = ()) -> None:
        done = (
            "before there was anything to keep"
            if partial is None
            else f"after {partial.n_evaluations} evaluations"
        )
        super().__init__(f"interrupted {done}; what was computed is in .partial")
        self.partial = partial
        self.completed = tuple(completed)

    def __reduce__(self) -> tuple[type[Interrupted], tuple[Estimate | None, tuple[Estimate, ...]]]:
        return type(self), (self.partial, self.completed)


@contextmanager
def with_nothing_to_keep() -> Iterator[None]:
    """Make `Interrupted` of a Ctrl-C while the model is called before the first block."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(None) from None
