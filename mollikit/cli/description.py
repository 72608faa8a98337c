from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mollikit.cli.command import UsageError

_KNOWN = {"image": ("size", "crop_fraction", "mean", "std", "layout"), "output": ("classes",)}


@dataclass(frozen=True)
class Description:
    """What the TOML file beside a model says of it; empty where there is no such file.

    Attributes
    ----------
    path : Path
        Where the file is, or would be.
    image : mapping
        How a photo becomes the input: ``size``, ``crop_fraction``, ``mean``, ``std``, ``layout``.
    classes : tuple of str
        Names of the outputs, in their order.
    """

    path: Path
    image: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @classmethod
    def beside(cls, model: Path) -> Description:
        """Read the TOML file of the model's name.

        Raises
        ------
        ValueError
            If it is not TOML, has a key that is not known, or classes that are not strings.
        """
        path = model.with_suffix(".toml")
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(path)!r} is not TOML: {error}") from error
        _refuse_unknown(path, "", told, tuple(_KNOWN))
        for table, known in _KNOWN.items():
            if not isinstance(told.get(table, {}), dict):
                raise ValueError(f"{str(path)!r}: {table} is a table: write [{table}]")
            _refuse_unknown(path, f"{table}.", told.get(table, {}), known)
        classes = told.get("output", {}).get("classes", [])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"{str(path)!r}: output.classes is a list of strings")
        return cls(path, told.get("image", {}), tuple(classes))

    def target(self, text: str) -> int | tuple[int, ...] | str:
        """Read a target: "top", an index, indices joined by commas, or the name of a class in any case.

        Raises
        ------
        UsageError
            If there is no class of that name; the nearest are suggested.
        """
        if text == "top":
            return text
        words = text.split(",")
        if all(word.strip().isdecimal() for word in words):
            index = tuple(int(word) for word in words)
            return index[0] if len(index) == 1 else index
        names = [name.casefold() for name in self.classes]
        count = names.count(text.casefold())
        if count == 1:
            return names.index(text.casefold())
        if count:
            same = [k for k, name in enumerate(names) if name == text.casefold()]
            raise UsageError(f"--target {text!r} names the classes {same}: give the index")
        if not names:
            raise UsageError(
                f"--target {text!r} is a name, and the classes have none: give an index, or name them as "
                f"classes = [...] under [output] in {str(self.path)!r}"
            )
        near = [name for name in self.classes if text.casefold() in name.casefold()][:5]
        near += [
            self.classes[names.index(name)] for name in difflib.get_close_matches(text.casefold(), names, 5)
        ]
        hint = ", ".join(map(repr, dict.fromkeys(near))) or "an index, or a name from the TOML"
        raise UsageError(f"--target {text!r}: {str(self.path)!r} names no such class; did you mean {hint}?")


def _refuse_unknown(path: Path, prefix: str, told: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [f"{prefix}{key}" for key in told if key not in known]:
        raise ValueError(
            f"{str(path)!r} has the unknown key {', '.join(unknown)}; "
            f"known are {', '.join(f'{prefix}{key}' for key in known)}"
        )
