"""Points that lie on a device already, and results that stay there: ONNX Runtime's OrtValues."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import onnxruntime as ort

from mollikit.oracles import Array
from mollikit_onnx.runtime.providers import Provider

# A batch of inputs on a device: an OrtValue (m, *shape), or a mapping of such by input name.
Bound: TypeAlias = ort.OrtValue | Mapping[str, ort.OrtValue]
# Its name and its index, as ONNX Runtime has them.
Device: TypeAlias = tuple[str, int]

_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


def is_bound(feed: Mapping[str, Any]) -> bool:
    """Whether any input of a call is an OrtValue."""
    return any(isinstance(given, ort.OrtValue) for given in feed.values())


def shape_of(given: Array | ort.OrtValue) -> tuple[int, ...]:
    """Return the shape of an input or a result."""
    return tuple(given.shape()) if isinstance(given, ort.OrtValue) else given.shape


def check_bound(feed: Mapping[str, Any], points: Collection[str], providers: Sequence[Provider]) -> None:
    """Raise where OrtValues cannot serve as the inputs of a call, of which some are the points.

    Raises
    ------
    TypeError
        Points are arrays beside OrtValues.
    ValueError
        The OrtValues lie on several devices, or on one that the providers do not work on.
    """
    values = {name: given for name, given in feed.items() if isinstance(given, ort.OrtValue)}
    for name in points:
        if name not in values:
            raise TypeError(
                f"input {name!r} is an array and {next(iter(values))!r} an OrtValue: give all points as "
                "OrtValues, beside which held inputs are either, or everything as arrays"
            )
    devices = {name: device_of(value) for name, value in values.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"the OrtValues of a call lie on one device, and these on {devices}")
    check_device(devices[next(iter(points))], providers)


def check_device(device: Device, providers: Sequence[Provider]) -> None:
    """Raise ValueError where sessions of the providers do not work on a device."""
    with_options = [(given, {}) if isinstance(given, str) else given for given in providers]
    served = {("cuda", int(options.get("device_id", 0))) for name, options in with_options if name in _CUDA}
    if device not in served | {("cpu", 0)}:
        raise ValueError(
            f"the points lie on {device}, and the oracle works on {sorted(served) or 'the cpu alone'}: for "
            f"CUDA make it with providers=[('CUDAExecutionProvider', {{'device_id': {device[1]}}})]; points "
            "on other devices come as arrays"
        )


def device_of(value: ort.OrtValue) -> Device:
    """Return the device that holds a tensor."""
    return value.device_name(), value.__dlpack_device__()[1]


def run_bound(
    session: ort.InferenceSession, names: Sequence[str], feed: Mapping[str, Array | ort.OrtValue]
) -> list[ort.OrtValue]:
    """Run a session on OrtValues of one device, beside arrays, and leave the results on that device."""
    device = next(device_of(given) for given in feed.values() if isinstance(given, ort.OrtValue))
    binding = session.io_binding()
    # Work that others, such as PyTorch, gave the device may still be writing the points.
    binding.synchronize_inputs()
    for name, given in feed.items():
        if isinstance(given, ort.OrtValue):
            binding.bind_ortvalue_input(name, given)
        else:
            binding.bind_cpu_input(name, given)
    for name in names:
        binding.bind_output(name, *device)
    session.run_with_iobinding(binding)
    # Each by itself: as they come they keep each other, the binding and its inputs alive.
    return [ort.OrtValue.from_dlpack(value) for value in binding.get_outputs()]
