from __future__ import annotations

from mollikit.estimators.base import Setting
from mollikit.kernels import Kernel
from mollikit_onnx.resident.draws import SAMPLERS, inner, table_of
from mollikit_onnx.resident.views import known

_HOST = "or let the host draw: OnnxOracle(..., resident=False)"


def check_resident(setting: Setting, device: str) -> None:
    """Raise ValueError where a setting asks for what is not done inside a graph."""
    sampler, perturbation = inner(setting.sampler), setting.perturbation
    if not isinstance(sampler, SAMPLERS) and perturbation.dimension:
        raise ValueError(
            f"{sampler!r} is not drawn on {device}: give Independent(), Antithetic() or Recentred(), {_HOST}"
        )
    for draws, _ in perturbation.draws:
        if not isinstance(draws, Kernel):
            raise ValueError(
                f"{type(draws).__name__} is not drawn on {device}: give a kernel itself, {_HOST}"
            )
        try:
            table_of(draws)
        except ValueError as error:
            raise ValueError(f"{error}, as {device} draws them: give another kernel, {_HOST}") from error
    for name, view in setting.views.items():
        if not known(view):
            raise ValueError(
                f"view {name!r} works on arrays, and the gradients stay on the device: compose it of Input, "
                f"ChannelSum and Pool, {_HOST}"
            )
