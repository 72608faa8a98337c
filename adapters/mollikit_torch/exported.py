from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mollikit.outputs import Output
from mollikit.targets import Target
from mollikit_torch.oracle import TorchOracle

_ARCHIVE = b"PK\x03\x04"
_M = TypeVar("_M", bound=nn.Module)


class ExportedFileError(ValueError):
    """A .pt2 file that cannot be used; the message names the culprit and the mend."""


def open_exported(
    path: str | os.PathLike[str],
    *,
    target: Target | Literal["top"] = None,
    output: Output = None,
    providers: Sequence[str] = (),
) -> TorchOracle:
    """Open a file written by ``torch.export.save`` as an oracle.

    Its float inputs are smoothed, its other inputs held, all by name. A program whose batch axis is
    fixed at 1 is run row by row: right, but slower than one exported with a dynamic batch axis. Open
    files that you trust only, as any model of PyTorch.

    Parameters
    ----------
    path : path
    target, output
        As for `TorchOracle`.
    providers : sequence of str
        Execution providers are ONNX Runtime's: none can be chosen here.

    Raises
    ------
    ExportedFileError
        The file cannot be read, has no float input or a fixed batch axis above 1, or was exported in
        train mode.
    ValueError, TypeError
        The target cannot be, or providers are named.

    Examples
    --------
    >>> import tempfile, torch, numpy as np
    >>> net, rows = torch.nn.Linear(3, 2).eval(), torch.export.Dim("rows")
    >>> program = torch.export.export(net, (torch.ones(2, 3),), dynamic_shapes=({0: rows},))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.export.save(program, f"{folder}/net.pt2")
    ...     oracle = open_exported(f"{folder}/net.pt2", target=1)
    >>> oracle.value_and_gradient(np.ones((4, 3), np.float32))[1].shape
    (4, 3)
    """
    if providers:
        raise ValueError(
            f"providers={list(providers)} are ONNX Runtime's: a .pt2 file runs where it was exported"
        )
    model = ExportedModel(_load(Path(path)))
    shapes = {name: row for name, (row, floats) in model.inputs.items() if floats}
    if not shapes:
        raise ExportedFileError(
            f"{os.fspath(path)!r} has no input of floats to smooth (its inputs: {list(model.inputs)}): "
            "export the part of the model behind the embedding"
        )
    return TorchOracle(
        model, target=target, output=output, device=model.device, dtype=model.dtype, input_shapes=shapes
    )


class ExportedModel(nn.Module):
    """An exported program as a module of its inputs by name, with parameters of the names that they had.

    Attributes
    ----------
    inputs : mapping
        By name: the shape without the batch axis, None where open, and whether it holds floats.
    device, dtype
        Of the first float input.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        _refuse_train_mode(program)
        self._program = program
        user = program.graph_signature.user_inputs
        placeholders = {node.name: node.meta["val"] for node in program.graph.find_nodes(op="placeholder")}
        tensors: dict[str, Tensor] = {
            name: placeholders[name]
            for name in user
            if isinstance(name, str) and isinstance(placeholders.get(name), Tensor)
        }
        self._arguments = tuple(user)
        self._row_by_row = any(_is_single(name, tensor) for name, tensor in tensors.items())
        self.inputs = {name: (_row(tensor), tensor.is_floating_point()) for name, tensor in tensors.items()}
        floats = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
        self.device = floats[0].device if floats else torch.device("cpu")
        self.dtype = floats[0].dtype if floats else torch.float32
        self._dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        self._module = program.module().requires_grad_(False)
        for module in self.modules():
            module.training = False  # it was traced in eval mode, and its own train() and eval() refuse

    def forward(self, **inputs: Tensor) -> Any:
        """Outputs for a batch of inputs.

        Raises
        ------
        ValueError
            An input is missing or unknown.
        """
        if inputs.keys() != self.inputs.keys():
            missing, unknown = self.inputs.keys() - inputs.keys(), inputs.keys() - self.inputs.keys()
            raise ValueError(
                f"the program takes {list(self.inputs)}"
                + (f"; not given: {sorted(missing)}" if missing else "")
                + (f"; unknown: {sorted(unknown)}" if unknown else "")
            )
        cast = {name: tensor.to(self._dtypes[name]) for name, tensor in inputs.items()}
        if not self._row_by_row:
            return self._called(cast)
        rows = len(next(iter(cast.values())))
        # Copies, since a model that writes on one row would otherwise write on a view of all.
        singles = ({k: t[row : row + 1].clone() for k, t in cast.items()} for row in range(rows))
        return _joined([self._called(single) for single in singles])

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by their names in the module that was exported."""
        yield from self._module.named_parameters(*args, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModel:
        """Copy what a forward pass may write, and share the program and its code."""
        return _twin(self, memo)

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        content = io.BytesIO()
        torch.export.save(self._program, content)
        return _from_bytes, (content.getvalue(),)

    def _called(self, inputs: Mapping[str, Tensor]) -> Any:
        flat = [inputs.get(name, name) if isinstance(name, str) else name for name in self._arguments]
        positional, keywords = self._program.call_spec.in_spec.unflatten(flat)
        return self._module(*positional, **keywords)


def _load(path: Path) -> ExportedProgram:
    name = f"{os.fspath(path)!r}"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ExportedFileError(
            f"There is no file {name} (looked in {os.fspath(path.parent.absolute())!r}): check the path"
        ) from None
    except OSError as error:
        raise ExportedFileError(f"{name} cannot be read: {error.strerror}") from error
    if not content.startswith(_ARCHIVE):
        raise ExportedFileError(
            f"{name} ({len(content)} bytes) is not an exported program: write it by torch.export.save"
        )
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:  # an archive of another kind can make the reader raise nearly anything
        raise ExportedFileError(
            f"{name} is an archive but no exported program, is damaged, or was written by another version of "
            f"PyTorch: write it by torch.export.save (a state dict or a whole module is not enough): {error}"
        ) from error


def _from_bytes(content: bytes) -> ExportedModel:
    return ExportedModel(torch.export.load(io.BytesIO(content)))


def _refuse_train_mode(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        for place, argument in enumerate(node.target._schema.arguments):
            if argument.name not in ("train", "training", "use_input_stats"):
                continue
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            if given is True:
                raise ExportedFileError(
                    f"the program was exported in train mode (its operator {node.target}, "
                    f"{node.name!r}): call model.eval() before torch.export.export"
                )


def _is_single(name: str, tensor: Tensor) -> bool:
    if tensor.ndim == 0:
        raise ExportedFileError(f"input {name!r} is a scalar without a batch axis: make it part of the model")
    size = tensor.shape[0]
    if isinstance(size, int) and size > 1:
        raise ExportedFileError(
            f"input {name!r} has its first axis, the batch, fixed at {size}: export with dynamic_shapes, "
            "such as {0: torch.export.Dim('rows')} for this input"
        )
    return isinstance(size, int)


def _row(tensor: Tensor) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in tensor.shape[1:])


def _twin(module: _M, memo: dict[int, Any]) -> _M:
    """Copy a module as deepcopy does, but for what is neither a tensor nor a module: a graph and its code."""
    if id(module) not in memo:
        memo[id(module)] = twin = object.__new__(type(module))
        twin.__dict__.update(module.__dict__)
        twin._parameters = copy.deepcopy(module._parameters, memo)
        twin._buffers = copy.deepcopy(module._buffers, memo)
        twin._modules = {
            name: None if child is None else _twin(child, memo) for name, child in module._modules.items()
        }
    return cast(_M, memo[id(module)])


def _joined(rows: Sequence[Any]) -> Any:
    """Outputs of single rows as those of the batch."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(list(rows))
    if isinstance(first, Mapping):
        return {key: _joined([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple | list):
        return type(first)(_joined(column) for column in zip(*rows, strict=True))
    return first
