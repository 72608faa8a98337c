from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
from onnx import TensorProto, helper

from mollikit_onnx.loading import ModelFileError

# An execution provider by name, or by name with its options.
Provider = str | tuple[str, Mapping[str, Any]]


class ProviderError(RuntimeError):
    """An execution provider that is unknown, not installed, or that ONNX Runtime did not use."""


def check_providers(providers: Sequence[Provider]) -> tuple[Provider, ...]:
    """Return the providers as a tuple when each is really at work on this machine.

    ONNX Runtime lists as available what it was compiled with, and falls back to the CPU silently when
    a library or a device is missing. So every provider other than the CPU's is tried on a tiny graph.

    Parameters
    ----------
    providers : sequence of str or of (str, mapping)
        Execution providers by preference, as ``onnxruntime.InferenceSession`` takes them.

    Raises
    ------
    ProviderError
        A provider is unknown, not in the installed ONNX Runtime, or does not start on this machine.

    Examples
    --------
    >>> check_providers(["CPUExecutionProvider"])
    ('CPUExecutionProvider',)
    """
    if isinstance(providers, str):
        raise ProviderError(f"providers is a sequence of names: write ({providers!r},)")
    asked = tuple(providers)
    available = ort.get_available_providers()
    if not asked:
        raise ProviderError(f"No execution provider was given; this ONNX Runtime has {available}")
    for name in _names(asked):
        if name not in ort.get_all_providers():
            raise ProviderError(f"There is no execution provider {name!r}; this ONNX Runtime has {available}")
        if name not in available:
            raise ProviderError(
                f"The installed ONNX Runtime {ort.__version__} was built without {name}; it has {available}. "
                "Install the build that has it in place of onnxruntime (for CUDA: onnxruntime-gpu)"
            )
    if _names(asked) != ["CPUExecutionProvider"]:
        create_session(_IDENTITY, asked, None)
    return asked


def create_session(
    model: bytes, providers: Sequence[Provider], options: ort.SessionOptions | None, folder: str | None = None
) -> ort.InferenceSession:
    """Create a session that runs on every provider asked for.

    Parameters
    ----------
    model : bytes
        A serialized ONNX model.
    providers : sequence of str or of (str, mapping)
        Execution providers by preference.
    options : onnxruntime.SessionOptions or None
        None stands for ONNX Runtime's defaults: its own number of threads, graph optimisation at its
        highest level, and no log on stderr.
    folder : str, optional
        Where the model's external data lie; noted in ``options``, which are then nobody else's.

    Raises
    ------
    ProviderError
        ONNX Runtime fell back to other providers than those asked for.
    ModelFileError
        ONNX Runtime refuses the model.

    Examples
    --------
    >>> create_session(_IDENTITY, ["CPUExecutionProvider"], None).get_providers()
    ['CPUExecutionProvider']
    """
    if options is None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # What goes wrong comes as an exception; this keeps a second copy of it off stderr.
        options.log_severity_level = 4
    if folder is not None:
        # ONNX Runtime maps the data into memory, and all sessions share the pages.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        # With enable_fallback ONNX Runtime would answer a provider's failure with a session on the CPU.
        session = ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except _REFUSALS as error:
        raise ModelFileError(
            f"ONNX Runtime {ort.__version__} refuses the model: {error}. An operator that it lacks wants its "
            "library in session_options (register_custom_ops_library) or an export to standard operators (of "
            "a Keras gelu: with approximate=True, which has no Erfc); a kernel that it lacks for float16 or "
            "bfloat16 wants mollikit_onnx.widened(model); an opset or IR version that it lacks wants a newer "
            "onnxruntime or an export to an older opset"
        ) from error
    missing = [name for name in _names(providers) if name not in session.get_providers()]
    if missing:
        raise ProviderError(
            f"{missing[0]} did not start on this machine; ONNX Runtime would use "
            f"{session.get_providers()} instead. "
            "Install the provider's device, driver and libraries (for CUDA: pip install "
            "'onnxruntime-gpu[cuda,cudnn]'), or leave the provider out"
        )
    return session


def lives_on(provider: Provider) -> str:
    """Return what the device of a provider is called, such as "cpu" or "cuda:0".

    Examples
    --------
    >>> lives_on(("CUDAExecutionProvider", {"device_id": 1}))
    'cuda:1'
    """
    name, options = (provider, {}) if isinstance(provider, str) else provider
    device = name.removesuffix("ExecutionProvider").lower()
    return device if device == "cpu" else f"{device}:{options.get('device_id', 0)}"


# ONNX Runtime's exceptions derive from Exception alone.
_REFUSALS = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)


def _names(providers: Sequence[Provider]) -> list[str]:
    return [provider if isinstance(provider, str) else provider[0] for provider in providers]


def _identity() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    opsets = [helper.make_opsetid("", 13)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


_IDENTITY = _identity()
