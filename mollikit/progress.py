from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run stands, as told to a progress callback after each block.

    Attributes
    ----------
    n_evaluations : int
    seconds : float
    share : float
        Of the budget, from 0 to 1; 1 when the run has ended.
    relative_error : float
        Of the whole map, as estimated so far.
    done : bool
        Whether this is the last call for this input.
    """

    n_evaluations: int
    seconds: float
    share: float
    relative_error: float
    done: bool


ProgressCallback = Callable[[Progress], None]


class ProgressBar:
    """A progress callback that draws a bar on the standard error stream, with tqdm where it is installed.

    Examples
    --------
    >>> import mollikit as mk
    >>> bar = mk.ProgressBar("chelsea")   # smooth.estimate(..., progress=bar)
    """

    def __init__(self, label: str = "smoothing") -> None:
        self._label = label
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._line(progress)
            return
        if self._bar is None:
            self._bar = tqdm(total=100, desc=self._label, bar_format="{desc} {bar:24} {percentage:3.0f}%")
        self._bar.n = round(100 * progress.share)
        self._bar.set_description_str(f"{self._label}: {_told(progress)}")
        if progress.done:
            self.close()

    def _line(self, progress: Progress) -> None:
        print(f"\r{self._label} {progress.share:4.0%} {_told(progress)}", end="", file=sys.stderr, flush=True)  # noqa: T201
        if progress.done:
            print(file=sys.stderr)  # noqa: T201

    def close(self) -> None:
        """End the bar; called by itself when the run is done."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _told(progress: Progress) -> str:
    error = f"{progress.relative_error:.2g}" if isfinite(progress.relative_error) else "unresolved"
    return f"{progress.n_evaluations} evaluations, error {error}, {progress.seconds:.1f} s"
