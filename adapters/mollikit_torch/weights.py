from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import numpy as np
from torch import Tensor

from mollikit.oracles import Array
from mollikit_torch.tensors import array_of, tensor_of


def shown(weights: Mapping[str, Tensor]) -> dict[str, Array]:
    """Weights as read-only arrays: on the CPU the tensors' own memory."""
    arrays = {name: array_of(tensor).view() for name, tensor in weights.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def replacements(given: Mapping[str, Array], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return arrays as tensors like the weights of the same names, in the arrays' memory where possible.

    Raises
    ------
    ValueError
        There is no such weight, or a shape is not its own.
    """
    tensors = {}
    for name, array in given.items():
        if name not in own:
            if not own:
                raise ValueError(
                    f"there is no weight {name!r} to replace: a plain function keeps its own to itself; give "
                    "the torch.nn.Module"
                )
            near = get_close_matches(name, own, n=5) or list(own)[:5]
            raise ValueError(f"the model has no weight {name!r} of floats; among its {len(own)} are {near}")
        like = own[name]
        if np.shape(array) != tuple(like.shape):
            raise ValueError(f"weight {name!r} has the shape {tuple(like.shape)} and got {np.shape(array)}")
        # tensor_of takes batches: a single number is one of one row.
        tensor = tensor_of(np.atleast_1d(array), f"weight {name!r}", like.device, like.dtype)
        tensors[name] = tensor.reshape(like.shape)
    return tensors
