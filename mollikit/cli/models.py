from __future__ import annotations

import hashlib
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
    dot, or, for models that are folders, by the name of a file that such a folder holds. It is called with
    the path, ``target=`` (an index, a tuple of them, or "top") and, where the user chose any, ``providers=``.

    Raises
    ------
    ValueError
        If no adapter opens such files.
    ImportError
        If what the adapter needs is not installed.
    """
    opened: ModelFile = adapter(path, _GROUP)(
        path, target=target, **({"providers": providers} if providers else {})
    )
    return opened


def adapter(path: Path, group: str) -> Any:
    """Return what is registered under an entry point group for a kind of file or folder.

    Raises
    ------
    ValueError, ImportError
        As in `open_model`.
    """
    points = {point.name: point for point in entry_points(group=group)}
    files = {f".{name}": point for name, point in points.items() if "." not in name}
    folders = {name: point for name, point in points.items() if "." in name}
    kind = path.suffix.lower()
    if path.is_dir():
        kind = next((name for name in folders if (path / name).is_file()), "")
    adapters = folders if path.is_dir() else files
    if kind not in adapters:
        what = "is a folder without any known file" if path.is_dir() else f"ends in {kind or 'no suffix'!r}"
        known = [*sorted(files), *(f"folders with {name}" for name in sorted(folders))]
        raise ValueError(
            f"{str(path)!r} {what}, and the installed adapters open {', '.join(known) or 'nothing'}: "
            f"export the model to one of these, or install an adapter that registers {kind or 'a suffix'!r} "
            f"under the entry point group {group!r}"
        )
    return _loaded(adapters[kind], kind)


def fingerprint(path: Path) -> str:
    """Sha256 of a model file, or of the names and contents of all files in a folder, in hexadecimal."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _loaded(point: EntryPoint, suffix: str) -> Any:
    try:
        return point.load()
    except ImportError as error:
        adapter = point.module.partition(".")[0]
        extra = adapter.removeprefix("mollikit_")
        mend = f"pip install 'mollikit[{extra}]'" if extra != adapter else f"install what {adapter} needs"
        raise ImportError(f"{suffix} files need the module {error.name or adapter!r}: {mend}") from error
