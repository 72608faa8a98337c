from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mollikit.oracles import Array


def tensor_of(given: Any, name: str, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """Return an array as a tensor, floats in ``dtype``; it shares the array's memory where layouts allow.

    Raises
    ------
    TypeError
        The array holds what no tensor can.
    ValueError
        It is a scalar, without a batch axis.
    """
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} is an array of {array.dtype}: floats, integers and booleans can be given")
    if array.ndim == 0:
        raise ValueError(f"{name} takes a batch (m, *shape) and got a scalar")
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # PyTorch takes neither read-only memory (without a warning) nor foreign byte orders nor negative strides.
    if not array.dtype.isnative or not array.flags.writeable or min(array.strides) < 0:
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    with torch.inference_mode(False):  # a tensor made under inference_mode takes no part in gradients
        tensor = torch.from_numpy(array)
        return tensor.to(device, dtype if tensor.is_floating_point() else None)


def array_of(tensor: Tensor) -> Array:
    """Return a tensor as a contiguous array; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.contiguous().cpu().numpy()
    return array


@contextmanager
def computing(
    device: torch.device, *, rows: int, gradients: bool, autocast: torch.dtype | None
) -> Iterator[None]:
    """Settings of this thread in which the model runs, whatever the caller's are.

    Raises
    ------
    MemoryError
        PyTorch found no memory.
    """
    try:
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),
            torch.autocast(device.type, dtype=autocast, enabled=autocast is not None),
        ):
            yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise MemoryError(f"PyTorch found no memory for a batch of {rows}: {error}") from error
        raise
