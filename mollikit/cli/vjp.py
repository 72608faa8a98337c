"""``mollikit vjp``: the gradient of a model file as a model file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mollikit.cli import options
from mollikit.cli.command import Command
from mollikit.cli.models import adapter

_GROUP = "mollikit.gradients"


class Written(Protocol):
    """What an adapter tells of the gradient that it wrote.

    An adapter registers a callable under the entry point group ``mollikit.gradients``, by the suffix of its
    files without the dot. It is called with the path of the model and that of the gradient, ``wrt=`` and
    ``of=`` (names, all where there are none), ``opset=`` (a number or None) and ``straight_through=``.
    """

    @property
    def inputs(self) -> Sequence[str]:
        """Names with types."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """Names with types."""
        ...

    @property
    def n_operators(self) -> int:
        """Of the gradient, with the forward ones."""
        ...

    @property
    def n_forward_operators(self) -> int:
        """Of the model."""
        ...

    @property
    def opset(self) -> int:
        """Version of the operators."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """All that was written."""
        ...

    @property
    def shared(self) -> Sequence[str]:
        """Files of the model that the gradient needs."""
        ...

    @property
    def n_bytes(self) -> int:
        """Of the files."""
        ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of ``mollikit vjp``."""
    parser.description = (
        "Write the gradient of a model as a model of the same kind. It takes the model's inputs and one "
        'input "<output>.cotangent" for each output, and returns the model\'s outputs and one '
        '"<input>.gradient" for each input: the cotangents times the Jacobian.'
    )
    parser.epilog = (
        "exit codes: 0 done; 1 the model or a name is at fault, or an operator has no gradient; 2 wrong "
        "usage; 130 interrupted. The file is written whole or not at all."
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a model file, such as model.onnx")
    add("-o", "--out", type=Path, required=True, metavar="GRADIENT", help="the file to be written")
    add(
        "--wrt",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="tensors to differentiate with respect to: inputs, weights or intermediate ones (default: every "
        "input of floats)",
    )
    add(
        "--of",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="tensors to differentiate: outputs or intermediate ones (default: every output of floats)",
    )
    add(
        "--opset",
        type=options.whole(1),
        metavar="N",
        help="operator set of the gradient (default: the model's)",
    )
    add(
        "--straight-through",
        action="store_true",
        help="let gradients pass the rounding of quantised models, which is refused otherwise",
    )
    add("--json", action="store_true", help="what was written as JSON on standard output")
    options.debug(parser)


def run(asked: argparse.Namespace) -> int:
    """Write the gradient and say what it is."""
    write = adapter(asked.model, _GROUP)
    written: Written = write(
        asked.model,
        asked.out,
        wrt=asked.wrt,
        of=asked.of,
        opset=asked.opset,
        straight_through=asked.straight_through,
    )
    if asked.json:
        print(json.dumps(_plain(written), indent=1))
    else:
        print("\n".join(_lines(written)))
    return 0


def _plain(written: Written) -> dict[str, object]:
    return {
        "files": [str(path) for path in written.files],
        "shared": list(written.shared),
        "n_bytes": written.n_bytes,
        "n_operators": written.n_operators,
        "n_forward_operators": written.n_forward_operators,
        "opset": written.opset,
        "inputs": list(written.inputs),
        "outputs": list(written.outputs),
    }


def _lines(written: Written) -> list[str]:
    size = f"{written.n_bytes / 1e6:.1f} MB" if written.n_bytes >= 1e6 else f"{written.n_bytes / 1e3:.1f} kB"
    said = [
        f"{', '.join(map(str, written.files))}: {size}, {written.n_operators} operators of opset "
        f"{written.opset} (the model has {written.n_forward_operators})"
    ]
    if written.shared:
        said.append(f"  weights  in {', '.join(written.shared)}, which the model and its gradient share")
    for title, ports in (("inputs", written.inputs), ("outputs", written.outputs)):
        said += [f"  {title if k == 0 else '':8} {port}" for k, port in enumerate(ports)]
    return said


COMMAND = Command("vjp", "the gradient of a model file as a model file", add_arguments, run)
