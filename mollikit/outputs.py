from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

# One of several outputs: its place, its key or attribute, or a function that takes it out.
Output: TypeAlias = int | str | Callable[[Any], Any] | None


@runtime_checkable
class Shaped(Protocol):
    """An array of any framework."""

    @property
    def shape(self) -> Sequence[int | None]:
        """Sizes of its axes, None where open."""
        ...


def chosen(outputs: Any, output: Output) -> Any:
    """Return one of a model's outputs, or all that it returns where none is named.

    Raises
    ------
    ValueError
        There is no such output.

    Examples
    --------
    >>> chosen({"logits": 1, "features": 2}, "features")
    2
    """
    if output is None:
        return outputs
    if callable(output):
        return output(outputs)
    try:
        if isinstance(output, str) and not isinstance(outputs, Mapping):
            return getattr(outputs, output)
        if isinstance(output, int) and isinstance(outputs, Shaped):
            raise IndexError  # a row of a tensor is not an output
        return outputs[output]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError):
        raise ValueError(f"The model has no output {output!r}: it returns {form(outputs)}") from None


def form(outputs: Any) -> str:
    """What a model returned, in words that tell what can be chosen."""
    if isinstance(outputs, Shaped):
        sizes = ("?" if size is None else str(size) for size in outputs.shape)
        return f"a tensor ({', '.join(sizes)})"
    if isinstance(outputs, Mapping):
        return f"a mapping with the keys {list(outputs)}"
    if isinstance(outputs, tuple | list):
        return f"{len(outputs)} outputs, numbered from 0"
    if dataclasses.is_dataclass(outputs):
        return f"a {type(outputs).__name__} with {[field.name for field in dataclasses.fields(outputs)]}"
    return f"an object of type {type(outputs).__name__}"


def not_the_batch(shape: Sequence[int | None], rows: int) -> str:
    """What is wrong with an output of another length than the batch."""
    return f"the output has the shape {tuple(shape)} for {rows} points: its first axis must be the batch"
