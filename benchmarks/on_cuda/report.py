"""The report: a file with a section for each part, of which a run replaces its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_HEADING = "Gradients by ONNX Runtime's CUDA provider"


@dataclass
class Section:
    """Lines that are printed as they come and stand in the file from then on."""

    title: str
    file: Path | None
    lines: list[str] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Add lines."""
        for line in lines:
            print(line, flush=True)
        self.add(*lines)

    def add(self, *lines: str) -> None:
        """Add lines to the file alone."""
        self.lines += lines
        if self.file is not None:
            self._write(self.file)

    def _write(self, file: Path) -> None:
        before = file.read_text(encoding="utf-8") if file.exists() else f"# {_HEADING}\n\n"
        parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)
        mine = "\n".join([f"## {self.title}", "", *self.lines]) + "\n\n"
        there = [k for k, part in enumerate(parts) if part.startswith(f"## {self.title}\n")]
        if there:
            parts[there[0]] = mine
        else:
            parts.append(mine)
        file.write_text("".join(parts).rstrip("\n") + "\n", encoding="utf-8")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]
