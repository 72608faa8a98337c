"""How estimates are kept: an ``.npz`` of plain arrays, and ``about``, JSON that tells what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mollikit.atomic import replacing
from mollikit.layout import Layout, Leaf

FORMAT = 1
# What files without a kind hold: they are older than the kinds.
_FIRST = "Estimate"
Kept = TypeVar("Kept")


def write(
    path: str | os.PathLike[str], kind: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the file, whole or not at all."""
    told = json.dumps({"format": FORMAT, "kind": kind, **about})
    with replacing(path) as file:
        whole: dict[str, Any] = {"about": np.array(told), **arrays}
        np.savez(file, **whole)


def read(
    path: str | os.PathLike[str],
    kind: str,
    made: Callable[[Mapping[str, Any], dict[str, NDArray[np.float64]]], Kept],
) -> Kept:
    """Read what `write` wrote; no code is run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else, or another kind.
    """
    name = repr(os.fspath(path))
    with open(path, "rb") as file:
        try:
            stored = np.load(file, allow_pickle=False)
            about = json.loads(str(stored["about"]))
            found, version = about.get("kind", _FIRST), about["format"]
            if (found, version) == (kind, FORMAT):
                return made(about, {key: stored[key] for key in stored.files if key != "about"})
        except Exception as error:
            raise ValueError(
                f"{name} is not an estimate that {kind}.save wrote ({type(error).__name__})"
            ) from error
    if found != kind:
        raise ValueError(f"{name} holds a {found}: read it by {found}.load")
    raise ValueError(
        f"{name} is not an estimate that {kind}.save wrote in the format that this version reads: it has "
        f"format {version}, not {FORMAT}"
    )


def of_layout(layout: Layout) -> list[dict[str, Any]]:
    """Tell a layout, fit for JSON."""
    return [asdict(leaf) | {"dtype": leaf.dtype.str} for leaf in layout.leaves]


def layout_of(leaves: Sequence[Mapping[str, Any]]) -> Layout:
    """Read what `of_layout` told."""
    return Layout(
        tuple(
            Leaf(**{**leaf, "shape": tuple(leaf["shape"]), "dtype": np.dtype(leaf["dtype"])})
            for leaf in leaves
        )
    )
