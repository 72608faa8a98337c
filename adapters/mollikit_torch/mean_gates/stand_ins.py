from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from mollikit_torch.mean_gates.tracing import aten

Args = Sequence[Any]


@dataclass(frozen=True)
class StandIn:
    """A linear map for an operator that is not linear.

    Attributes
    ----------
    seen : callable
        From the arguments and the result to what is averaged over the rows.
    linear : callable
        From the operator, its arguments in the linear model and the averages to its result there.
    """

    seen: Callable[[Args, Any], Sequence[Tensor]]
    linear: Callable[[Any, Args, Sequence[Tensor]], Any]


def find_stand_in(operator: Any, varying: Sequence[int]) -> StandIn | None:
    """Return the stand-in of an operator of which these arguments vary, where it has one."""
    if operator in _FACTORS:
        return _product(_FACTORS[operator], varying)
    return _STAND_INS.get(operator)


# Where the two factors of a product stand.
_FACTORS = {
    **dict.fromkeys((aten.mul.Tensor, aten.mm.default, aten.bmm.default, aten.convolution.default), (0, 1)),
    aten.addmm.default: (1, 2),
}


def _product(factors: tuple[int, int], varying: Sequence[int]) -> StandIn:
    """A b is E[a] b + a E[b], less a constant: exact for a and b jointly Gaussian."""
    moving = [k for k in factors if k in varying]

    def linear(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
        mean = dict(zip(moving, means, strict=True))
        parts: list[Any] = []
        for k in moving:
            # What is added to the product enters once.
            rest = [a.detach() if parts and isinstance(a, Tensor) else a for a in args]
            parts.append(operator(*(args[k] if i == k else mean.get(i, a) for i, a in enumerate(rest))))
        return sum(parts[1:], parts[0])

    return StandIn(lambda args, y: [args[k] for k in moving], linear)


def _of_quotient(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    """A / b is E[1 / b] a - E[a / b^2] b, less a constant."""
    return args[0] * means[0] - args[1] * means[1]


def _of_softmax(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    """The derivative at the mean probabilities p: p (x - sum p x)."""
    return means[0] * _of_log_softmax(operator, args, means)


def _of_log_softmax(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    """The mean of its derivative: x - sum p x, p the mean probabilities."""
    return args[0] - (means[0] * args[0]).sum(args[1], keepdim=True)


def _operands_chosen(args: Args, y: Tensor) -> list[Tensor]:
    """Each operand as often as it is the one; equal ones share."""
    masks = [(x == y).to(y.dtype) for x in args]
    return [mask / (masks[0] + masks[1]) for mask in masks]


def _of_chosen(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    return args[0] * means[0] + args[1] * means[1]


def _places_chosen(args: Args, y: Any) -> list[Tensor]:
    """Each element as often as it is the one; equal ones share."""
    x, axes, keepdim = _reduced(args)
    y = y[0] if isinstance(y, tuple) else y
    for axis in () if keepdim else sorted(axis % x.ndim for axis in axes):
        y = y.unsqueeze(axis)
    mask = (x == y).to(x.dtype)
    return [mask / mask.sum(axes, keepdim=True)]


def _of_places(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    x, axes, keepdim = _reduced(args)
    return (x * means[0]).sum(axes, keepdim=keepdim)


def _reduced(args: Args) -> tuple[Tensor, list[int], bool]:
    x, axes, keepdim = (*args, [], False)[:3] if len(args) == 1 else (*args, False)[:3]
    axes = [axes] if isinstance(axes, int) else axes
    return x, list(axes) or list(range(x.ndim)), keepdim


def _windows_chosen(args: Args, y: Any) -> list[Tensor]:
    """Each element of a window as often as it is its largest; equal ones share."""
    mask = (_windows(args, y[0].shape, float("-inf")) == y[0].flatten(2).unsqueeze(2)).to(y[0].dtype)
    return [mask / mask.sum(2, keepdim=True)]


def _of_windows(operator: Any, args: Args, means: Sequence[Tensor]) -> Any:
    out = operator(*args)[0].shape
    return (_windows(args, out, 0.0) * means[0]).sum(2).reshape(out), None


def _windows(args: Args, out: Sequence[int], outside: float) -> Any:
    """The elements of all windows of a pool, (n, c, place in the window, window)."""
    x, given = args[0], dict(enumerate(args))
    kernel, padding, dilation = given[1], given.get(3, [0, 0]), given.get(4, [1, 1])
    stride = given.get(2) or kernel
    pads: list[int] = []
    for k in (1, 0):
        reach = (out[2 + k] - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1
        pads += [padding[k], reach - padding[k] - x.shape[2 + k]]
    padded = functional.pad(x, pads, value=outside).flatten(0, 1).unsqueeze(1)
    windows = functional.unfold(padded, kernel, dilation, stride=stride)
    return windows.reshape(*x.shape[:2], *windows.shape[1:])


_PLACES = StandIn(_places_chosen, _of_places)
_WITH_INDICES = StandIn(_places_chosen, lambda *a: (_of_places(*a), None))
_STAND_INS: dict[Any, StandIn] = {
    aten.div.Tensor: StandIn(lambda args, y: [1 / args[1], y / args[1]], _of_quotient),
    aten._log_softmax.default: StandIn(lambda args, y: [y.exp()], _of_log_softmax),
    aten.max_pool2d_with_indices.default: StandIn(_windows_chosen, _of_windows),
    **dict.fromkeys(
        (aten._softmax.default, aten._safe_softmax.default), StandIn(lambda args, y: [y], _of_softmax)
    ),
    **dict.fromkeys((aten.maximum.default, aten.minimum.default), StandIn(_operands_chosen, _of_chosen)),
    **dict.fromkeys((aten.amax.default, aten.amin.default), _PLACES),
    **dict.fromkeys((aten.max.dim, aten.min.dim), _WITH_INDICES),
}
