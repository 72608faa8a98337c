"""The architectures at test size: small widths, random weights, a dynamic batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from tests.onnx.architectures import convolutional, language, mobile, pictures, recurrent
from tests.onnx.architectures import vision_transformers as transformers

Arrays = dict[str, np.ndarray]
# A shape behind the batch: normal random numbers; or a function of (generator, batch, what is added to the
# sizes of dynamic axes).
Drawn = tuple[int, ...] | Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Architecture:
    """A net, its inputs and which of their axes are dynamic.

    Attributes
    ----------
    build : callable
        Makes the net; its weights come from torch's generator.
    inputs : mapping
        By name, in the order of the net's arguments.
    dynamic : mapping
        Names of the dynamic axes of an input beside the batch.
    outputs : tuple of str
    embedded : bool
        Whether the gradient is taken at ``net.words``, the embeddings of the first input.
    batch_axis : mapping
        Where it is not 0.
    torchscript : int or None
        The first opset at which the older exporter can write the net down.
    """

    build: Callable[[], nn.Module]
    inputs: Mapping[str, Drawn] = field(default_factory=lambda: {"image": (3, 16, 16)})
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits",)
    embedded: bool = False
    batch_axis: Mapping[str, int] = field(default_factory=dict)
    torchscript: int | None = 11

    def net(self, seed: int = 0) -> nn.Module:
        """The net in evaluation mode, statistics of normalizations random too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = self.build()
            with torch.no_grad():
                for layer in net.modules():
                    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                        layer.running_mean.normal_(0, 0.3)
                        layer.running_var.uniform_(0.5, 2)
                    if isinstance(
                        layer, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm
                    ):
                        layer.weight.uniform_(0.5, 1.5)
                        if getattr(layer, "bias", None) is not None:
                            layer.bias.normal_(0, 0.3)
        return net.eval().requires_grad_(False)

    def draw(self, seed: int, batch: int, more: int = 0) -> Arrays:
        """Inputs, floats in float32; dynamic axes beside the batch are longer by ``more``."""
        rng = np.random.default_rng(seed)
        drawn = {}
        for name, kind in self.inputs.items():
            if callable(kind):
                drawn[name] = kind(rng, batch, more)
            else:
                shape = list(kind)
                shape.insert(self.batch_axis.get(name, 0), batch)
                for axis in self.dynamic.get(name, {}):
                    shape[axis] += more
                drawn[name] = rng.standard_normal(shape, np.float32)
        return drawn

    def axes(self, name: str) -> dict[int, str]:
        """Names of the dynamic axes of an input."""
        return {self.batch_axis.get(name, 0): "batch", **self.dynamic.get(name, {})}


def _tokens(rng: np.random.Generator, batch: int, more: int) -> np.ndarray:
    return rng.integers(0, 50, (batch, 7 + more))


def _mask(rng: np.random.Generator, batch: int, more: int) -> np.ndarray:
    return (np.arange(7 + more) < rng.integers(4, 8 + more, (batch, 1))).astype(np.int64)


def _times(rng: np.random.Generator, batch: int, _: int) -> np.ndarray:
    return rng.uniform(0, 20, batch).astype(np.float32)


_IMAGE = {"image": {2: "height", 3: "width"}}
_WORDS = {"tokens": {1: "length"}, "mask": {1: "length"}}
_SPEECH = {"frames": (8, 15)}

ARCHITECTURES: dict[str, Architecture] = {
    "resnet": Architecture(convolutional.ResNet),
    "resnet-bottleneck": Architecture(partial(convolutional.ResNet, bottleneck=True), dynamic=_IMAGE),
    "vgg": Architecture(convolutional.VGG),
    "densenet": Architecture(convolutional.DenseNet),
    "inception": Architecture(convolutional.Inception, {"image": (3, 19, 19)}),
    "convnext": Architecture(convolutional.ConvNeXt),
    "mobilenet-v2": Architecture(mobile.mobilenet_v2, dynamic=_IMAGE),
    "mobilenet-v3": Architecture(mobile.mobilenet_v3),
    "efficientnet": Architecture(mobile.efficientnet),
    "shufflenet": Architecture(mobile.shufflenet),
    "vit": Architecture(transformers.ViT, torchscript=14),
    "swin": Architecture(transformers.Swin, torchscript=13),
    "maxvit": Architecture(transformers.MaxViT, torchscript=13),
    "unet-transposed": Architecture(pictures.UNet, dynamic=_IMAGE),
    "unet-bilinear": Architecture(partial(pictures.UNet, "bilinear")),
    "unet-aligned": Architecture(partial(pictures.UNet, "aligned")),
    "unet-nearest": Architecture(partial(pictures.UNet, "nearest"), dynamic=_IMAGE),
    "yolo": Architecture(pictures.Yolo, {"image": (3, 32, 32)}),
    "diffusion": Architecture(pictures.DiffusionBlock, {"image": (3, 8, 8), "time": _times}, torchscript=14),
    "bert": Architecture(
        language.Bert, {"tokens": _tokens, "mask": _mask}, _WORDS, embedded=True, torchscript=14
    ),
    "gpt": Architecture(
        language.Gpt, {"tokens": _tokens}, {"tokens": {1: "length"}}, embedded=True, torchscript=None
    ),
    "gpt-written-out": Architecture(
        partial(language.Gpt, norm=language.WrittenOutRMSNorm),
        {"tokens": _tokens},
        {"tokens": {1: "length"}},
        embedded=True,
        torchscript=14,
    ),
    "speech-lstm": Architecture(partial(recurrent.SpeechNet, nn.LSTM), _SPEECH, {"frames": {2: "time"}}),
    "speech-gru": Architecture(partial(recurrent.SpeechNet, nn.GRU), _SPEECH),
    "voice-detector": Architecture(
        recurrent.Detector,
        {"frame": (12,), "hidden": (1, 6), "carried": (1, 6)},
        outputs=("probability", "hidden_after", "carried_after"),
        batch_axis={"hidden": 1, "carried": 1},
    ),
}
