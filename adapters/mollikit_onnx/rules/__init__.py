from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules


@cache
def load_rules() -> None:
    """Register the rules in the files of this folder; later calls cost nothing."""
    for family in iter_modules(__path__):
        import_module(f"{__name__}.{family.name}")
