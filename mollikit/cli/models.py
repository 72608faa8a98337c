from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mollikit.oracles import ModelFile

_GROUP = "mollikit.models"


@runtime_checkable
class Described(Protocol):
    """A model that tells what a reader needs to repeat a result."""

    def describe(self) -> dict[str, Any]:
        """Return it, ready for JSON."""
        ...


def open_model(path: Path, target: int | tuple[int, ...] | str, providers: Sequence[str] | None) -> ModelFile:
    """Open a model file with the adapter that is registered for its suffix; no other is imported.

    An adapter registers a callable under the entry point group ``mollikit.models``, by the suffix without its
    dot. It is called with the path, ``target=`` (an index, a tuple of them, or "top") and, where the
    user chose any, ``providers=``.

    Raises
    ------
    ValueError
        If no adapter opens such files.
    ImportError
        If what the adapter needs is not installed.
    """
    adapters = {f".{point.name}": point for point in entry_points(group=_GROUP)}
    suffix = path.suffix.lower()
    if suffix not in adapters:
        raise ValueError(
            f"{str(path)!r} ends in {suffix or 'no suffix'!r}, and the installed adapters open "
            f"{', '.join(sorted(adapters)) or 'nothing'}: export the model to one of these, or install an "
            f"adapter that registers {suffix or 'a suffix'!r} under the entry point group {_GROUP!r}"
        )
    opened: ModelFile = _loaded(adapters[suffix], suffix)(
        path, target=target, **({"providers": providers} if providers else {})
    )
    return opened


def _loaded(point: EntryPoint, suffix: str) -> Any:
    try:
        return point.load()
    except ImportError as error:
        adapter = point.module.partition(".")[0]
        extra = adapter.removeprefix("mollikit_")
        mend = f"pip install 'mollikit[{extra}]'" if extra != adapter else f"install what {adapter} needs"
        raise ImportError(f"{suffix} files need the module {error.name or adapter!r}: {mend}") from error
