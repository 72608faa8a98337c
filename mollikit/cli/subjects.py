from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mollikit import ChannelSum, Pool, View
from mollikit.cli.command import UsageError
from mollikit.cli.description import Description
from mollikit.cli.images import Preprocessing, sides
from mollikit.layout import Layout

Shapes = Mapping[str, tuple[int | None, ...]]
# Where the side of a photo is cut into cells for the pooled view: 8 pixels each way at 224.
_CELLS_PER_SIDE = 28
_ARRAYS = (".npy", ".npz")


@dataclass(frozen=True, eq=False)
class Subject:
    """One input of the command line, read and ready for the model.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file.
    points : ndarray, or mapping of them by input name
        What is smoothed: one input, no batch axis.
    held : mapping of ndarray
        The model's other inputs.
    photo : ndarray or None
        (H, W, 3) or (H, W): what the model sees of an image.
    preprocessing : Preprocessing or None
        Of an image.
    """

    path: Path
    sha256: str
    points: Any
    held: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    photo: NDArray[np.uint8] | None = None
    preprocessing: Preprocessing | None = None

    @property
    def batch(self) -> Any:
        """The points with a batch axis of one row."""
        if isinstance(self.points, Mapping):
            return {name: values[None] for name, values in self.points.items()}
        return self.points[None]

    @property
    def held_batch(self) -> dict[str, NDArray[Any]]:
        """The held inputs with a batch axis of one row."""
        return {name: values[None] for name, values in self.held.items()}


def read_subjects(
    paths: Sequence[Path], shapes: Shapes, options: Mapping[str, Any], description: Description
) -> list[Subject]:
    """Read and check every input, before the model is asked about any.

    Parameters
    ----------
    paths : sequence of Path
    shapes : mapping
        Of the model's inputs that are smoothed.
    options : mapping
        The preprocessing that the command line asks for, by the names of `Preprocessing`.
    description : Description
        The rest of the preprocessing.

    Raises
    ------
    ValueError, OSError
        Naming the file that cannot be read or does not fit the model; as `UsageError`, where options are at
        fault.
    """
    if all(path.suffix.lower() in _ARRAYS for path in paths):
        for name, value in options.items():
            if value is not None and name not in ("size", "layout"):
                raise UsageError(
                    f"--{name.replace('_', '-')} is for images, and arrays are taken as they are: leave it "
                    "out, or give an image"
                )
    if not shapes:
        raise ValueError("the model does not say what shapes its inputs have: declare them in the model")
    stems: dict[str, Path] = {}
    for path in paths:
        if (other := stems.setdefault(path.stem, path)) is not path:
            raise ValueError(
                f"{str(other)!r} and {str(path)!r} would both be written as {path.stem}.json: rename one, "
                "or explain them into different folders"
            )
    return [_read(path, shapes, options, description) for path in paths]


def views_of(subject: Subject, pool: int | None) -> dict[str, View]:
    """Return the views of a photo: its channels summed, and those pooled. An array has none.

    Raises
    ------
    UsageError
        If cells of ``pool`` pixels are asked for that the input cannot have.
    """
    if subject.preprocessing is None:
        if pool is not None:
            raise UsageError(f"{str(subject.path)!r}: --view-pool is for images, and an array has no views")
        return {}
    summed = ChannelSum(axis=subject.preprocessing.channel_axis)
    side = min(subject.preprocessing.size)
    if pool is not None and pool > side:
        raise UsageError(f"--view-pool {pool} is more than the image's side of {side} pixels")
    return {"summed": summed, "pooled": summed.then(Pool(pool or max(1, side // _CELLS_PER_SIDE)))}


def _read(path: Path, shapes: Shapes, options: Mapping[str, Any], description: Description) -> Subject:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the input {str(path)!r} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    try:
        match path.suffix.lower():
            case ".npy":
                subject = Subject(path, digest, _only(shapes, _array(content)))
            case ".npz":
                subject = Subject(path, digest, *_split(_archive(content), shapes))
            case _:
                subject = _image(path, digest, content, shapes, options, description)
        Layout.of(subject.points)
        _check_shapes(subject.points, shapes)
        _check_sides(subject, options, description)
    except (ValueError, TypeError) as error:
        kind = UsageError if isinstance(error, UsageError) else ValueError
        raise kind(f"{str(path)!r}: {error}") from error
    return subject


def _image(
    path: Path,
    digest: str,
    content: bytes,
    shapes: Shapes,
    options: Mapping[str, Any],
    description: Description,
) -> Subject:
    if len(shapes) > 1:
        raise ValueError(f"the model has the inputs {sorted(shapes)}: give them together in a .npz file")
    shape = next(iter(shapes.values()))
    try:
        preprocessing = Preprocessing.chosen(options, description.image, shape)
    except ValueError as error:
        # Without options it is the TOML or the model that asks for what cannot be.
        kind = ValueError if all(value is None for value in options.values()) else UsageError
        raise kind(str(error)) from error
    photo = preprocessing.crop(content)
    return Subject(path, digest, preprocessing.model_input(photo), photo=photo, preprocessing=preprocessing)


def _only(shapes: Shapes, array: NDArray[Any]) -> NDArray[Any]:
    if len(shapes) > 1:
        raise ValueError(
            f"one array is given, and the model has the inputs {sorted(shapes)}: give a .npz with one by "
            "each name"
        )
    return array


def _split(
    arrays: Mapping[str, NDArray[Any]], shapes: Shapes
) -> tuple[NDArray[Any] | dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Split an archive into what is smoothed, in the model's order, and what is held."""
    if missing := [name for name in shapes if name not in arrays]:
        raise ValueError(
            f"it holds no array by the name of the model's input {', '.join(map(repr, missing))}, "
            f"only {sorted(arrays)}"
        )
    points = {name: arrays[name] for name in shapes}
    held = {name: array for name, array in arrays.items() if name not in shapes}
    return (points if len(points) > 1 else next(iter(points.values()))), held


def _check_shapes(points: Any, shapes: Shapes) -> None:
    given = points if isinstance(points, Mapping) else {next(iter(shapes)): points}
    for name, want in shapes.items():
        shape = given[name].shape
        if not _fits(shape, want):
            mend = ""
            if len(shape) == len(want) + 1 and _fits(shape[1:], want):
                mend = ": leave out the batch axis" if shape[0] == 1 else ": give one file for each row"
            elif len(shape) == 3 and _fits((shape[2], *shape[:2]), want):
                mend = ": move its last axis, the channels, to the front"
            expected = ", ".join("?" if n is None else str(n) for n in want)
            raise ValueError(f"the model's input {name!r} has the shape ({expected}), not {shape}{mend}")


def _check_sides(subject: Subject, options: Mapping[str, Any], description: Description) -> None:
    """Refuse an array that is an image of another size than the model's images are said to have."""
    size = description.image.get("size") if options.get("size") is None else options["size"]
    if size is None or isinstance(subject.points, Mapping) or subject.points.ndim != 3:
        return
    layout = options.get("layout") or description.image.get("layout")
    want, have = sides(size, subject.points.shape, layout)
    if want != have:
        asked = options.get("size") is not None
        told = "--size" if asked else f"size in {str(description.path)!r}"
        raise (UsageError if asked else ValueError)(
            f"the array is an image of {have[0]} x {have[1]}, and {told} says {want[0]} x {want[1]}: "
            f"resize it, or say --size {have[0]} {have[1]} if the model takes that"
        )


def _fits(shape: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(shape) == len(want) and all(w in (None, n) for w, n in zip(want, shape, strict=True))


def _array(content: bytes) -> NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"not a .npy file of numbers, or truncated: {error}") from error
    return np.asarray(array)


def _archive(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        stored = np.load(io.BytesIO(content), allow_pickle=False)
        return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a .npz file of numbers, or truncated: {error}") from error
