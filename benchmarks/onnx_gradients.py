"""Gradients of whole networks: mollikit_onnx on ONNX Runtime against PyTorch and onnx-ad, in one run.

    python benchmarks/onnx_gradients.py                    # writes benchmarks/onnx_gradients.md
    python benchmarks/onnx_gradients.py --only ResNet-18   # prints only
    python benchmarks/onnx_gradients.py --seconds 3        # quicker, prints only

Every setting of a network is called in turn in one process, so that a noisy machine slows all of them; ratios
are medians over the turns. onnx-ad is optional (``pip install --no-deps onnx-ad``).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from mollikit_onnx import pruned, vjp
from torch.fx.experimental.optimization import fuse

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "examples")]

from tests.onnx.architectures import convolutional, language, mobile, vision_transformers  # noqa: E402
from tests.onnx.architectures.catalogue import Architecture  # noqa: E402

THREADS = 2
SIDE = 224
_PICTURE = {"image": (3, SIDE, SIDE)}
_VGG_11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
_TEXT = {
    "tokens": lambda rng, batch, _: rng.integers(0, 5000, (batch, 128)),
    "mask": lambda _rng, batch, _: np.ones((batch, 128), np.int64),
}


@dataclass(frozen=True)
class Network:
    """A network in PyTorch and in ONNX, and a batch for it."""

    eager: torch.nn.Module
    best: torch.nn.Module
    model: onnx.ModelProto
    feeds: Mapping[str, np.ndarray]
    wrt: str
    of: str
    fixed: Callable[[], onnx.ModelProto] | None  # the model with a fixed batch, which onnx-ad needs


def picture_net(build: Callable[[], torch.nn.Module], batch: int) -> Network:
    """Random weights; the best PyTorch setting has BatchNorm folded in, and channels last."""
    architecture = Architecture(build, _PICTURE)
    net, feeds = architecture.net(), architecture.draw(0, batch)
    best = fuse(net).requires_grad_(False).to(memory_format=torch.channels_last)
    exported = partial(written_down, net, feeds, "logits")
    return Network(
        net, best, exported(dynamic=True), feeds, "image", "logits", partial(exported, dynamic=False)
    )


def bert(batch: int) -> Network:
    """An encoder of 6 layers, 384 wide; the gradient is at the word embeddings."""
    architecture = Architecture(partial(language.Bert, 384, 6, 6, 5000, 128, 2), _TEXT, embedded=True)
    net, feeds = architecture.net(), architecture.draw(0, batch)
    model = written_down(net, feeds, "logits", dynamic=True)
    (embedded,) = [n for n in model.graph.node if n.op_type == "Gather" and n.input[0] == "words.weight"]
    return Network(net, net, model, feeds, embedded.output[0], "logits", None)


def efficientnet_lite0(batch: int) -> Network:
    """The published weights."""
    import nets

    model = nets.efficientnet()
    image, logits = model.graph.input[0].name, model.graph.output[0].name
    rng = np.random.default_rng(0)
    feeds = {image: (nets.chelsea() + 0.3 * rng.standard_normal((batch, 3, SIDE, SIDE))).astype(np.float32)}
    best = nets.efficientnet_torch(folded=True).to(memory_format=torch.channels_last)
    return Network(nets.efficientnet_torch(folded=False), best, model, feeds, image, logits, None)


NETWORKS: dict[str, tuple[Callable[[int], Network], int]] = {
    "EfficientNet-Lite0, real weights": (efficientnet_lite0, 8),
    "MobileNetV2": (
        partial(picture_net, partial(mobile.mobilenet_v2, mobile.MOBILENET_V2, 32, 1280, 1000)),
        4,
    ),
    "MobileNetV3-Large": (
        partial(picture_net, partial(mobile.mobilenet_v3, mobile.MOBILENET_V3_LARGE, 16, 1280, 1000)),
        4,
    ),
    "ResNet-18": (
        partial(picture_net, partial(convolutional.ResNet, 64, (2, 2, 2, 2), False, 1000)),
        4,
    ),
    "ResNet-50": (partial(picture_net, partial(convolutional.ResNet, 64, (3, 4, 6, 3), True, 1000)), 2),
    "DenseNet-121": (
        partial(picture_net, partial(convolutional.DenseNet, 64, 32, (6, 12, 24, 16), 1000)),
        2,
    ),
    "VGG-11, small head": (
        partial(picture_net, partial(convolutional.VGG, _VGG_11, 512, 1000, SIDE)),
        1,
    ),
    "ViT-S/16": (
        partial(picture_net, partial(vision_transformers.ViT, 384, 6, 12, 16, SIDE, 1000)),
        2,
    ),
    "BERT, 6 layers of 384, 128 tokens": (bert, 4),
}


def written_down(
    net: torch.nn.Module, feeds: Mapping[str, np.ndarray], output: str, *, dynamic: bool
) -> onnx.ModelProto:
    """Export by the recording exporter at opset 17."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            tuple(torch.from_numpy(x) for x in feeds.values()),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=list(feeds),
            output_names=[output],
            dynamic_axes={name: {0: "batch"} for name in feeds} if dynamic else None,
        )
    return onnx.load_from_string(buffer.getvalue())


def session(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> ort.InferenceSession:
    """A session on the CPU; with ``sizes``, symbolic sizes are fixed while the graph is optimised."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 4
    # Threads that go on spinning after a run would slow down whoever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for symbol, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(symbol, size)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def sizes_of(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Sizes that the feeds give to the model's symbols."""
    return {
        dim.dim_param: size
        for value in model.graph.input
        if value.name in feeds
        for dim, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True)
        if dim.dim_param
    }


def by_torch(network: Network, net: torch.nn.Module, form: torch.memory_format) -> np.ndarray:
    """The gradient of output 1, parameters frozen."""
    inputs = [torch.from_numpy(x) for x in network.feeds.values()]
    if isinstance(net, language.Bert):
        leaf = net.words(inputs[0]).detach().requires_grad_()
        value = net.behind(leaf, *inputs[1:])
    else:
        leaf = inputs[0].contiguous(memory_format=form).requires_grad_()
        value = net(leaf)
    return torch.autograd.grad(value[:, 1].sum(), leaf)[0].numpy()


def by_onnx_ad(network: Network, cotangent: np.ndarray) -> Callable[[], np.ndarray] | str:
    """onnx-ad's gradient, or why there is none."""
    if importlib.util.find_spec("onnx_ad") is None:
        return "not installed"
    if network.fixed is None:
        return "needs a fixed batch and an input of floats"
    import onnx_ad

    try:
        reverse = onnx_ad.reverse(
            network.fixed(),
            inputs=[network.wrt],
            outputs=[network.of],
            prefix="adj_",
            dim="nadj",
            layout="onnx",
        )
        runner = session(reverse)
        feeds = dict(network.feeds) | {f"adj_{network.of}": cotangent[..., None]}
        call = lambda: runner.run([f"adj_{network.wrt}"], feeds)[0][..., 0]  # noqa: E731
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}".split("\n")[0][:60]
    return call


def measured(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each call, called in turn until the time is up, at least five times each."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return times


def row(name: str, seconds: float) -> str:
    """Measure one network."""
    build, batch = NETWORKS[name]
    network = build(batch)
    began = time.perf_counter()
    differentiated = vjp(network.model, [network.wrt], [network.of])
    transform = time.perf_counter() - began
    wanted = f"{network.wrt}.gradient"
    gradient = pruned(differentiated, [wanted])
    forward = session(network.model)
    cotangent = np.zeros_like(forward.run([network.of], dict(network.feeds))[0])
    cotangent[:, 1] = 1
    feeds = dict(network.feeds) | {f"{network.of}.cotangent": cotangent}
    open_session, fixed_session = session(gradient), session(gradient, sizes_of(network.model, network.feeds))
    asked = {value.name for value in open_session.get_inputs()}
    feeds = {key: x for key, x in feeds.items() if key in asked}
    calls: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: open_session.run([wanted], feeds)[0],
        "fixed": lambda: fixed_session.run([wanted], feeds)[0],
        "eager": lambda: by_torch(network, network.eager, torch.contiguous_format),
        "folded": lambda: by_torch(network, network.best, torch.channels_last),
    }
    other = by_onnx_ad(network, cotangent)
    if not isinstance(other, str):
        calls["onnx-ad"] = other
    expected = calls["eager"]()
    errors = {
        key: float(np.linalg.norm(call() - expected) / np.linalg.norm(expected))
        for key, call in calls.items()
    }
    print(f"{name}: relative difference to eager PyTorch", {k: f"{e:.1e}" for k, e in errors.items()})
    times = measured({**calls, "forward": lambda: forward.run([network.of], dict(network.feeds))}, seconds)

    def over(key: str, *others: str) -> float:
        lowest = [min(turn) for turn in zip(*(times[other] for other in others), strict=True)]
        return statistics.median(a / b for a, b in zip(times[key], lowest, strict=True))

    ours, fixed, *_ = (statistics.median(column) for column in times.values())
    beside = "-" if isinstance(other, str) else f"{over('ours', 'onnx-ad'):.2f}"
    if isinstance(other, str):
        print(f"{name}: onnx-ad: {other}")
    nodes = f"{len(network.model.graph.node)} to {len(gradient.graph.node)}"
    size = f"{network.model.ByteSize() / 2**20:.1f} to {gradient.ByteSize() / 2**20:.1f}"
    ratios = {
        key: [
            f"{over(key, 'eager'):.2f}",
            f"{over(key, 'eager', 'folded'):.2f}",
            f"{over(key, 'forward'):.2f}",
        ]
        for key in ("ours", "fixed")
    }
    cells = [name, batch, f"{ours:.1f}", *ratios["ours"], beside, f"{fixed:.1f}", *ratios["fixed"]]
    return "| " + " | ".join(map(str, [*cells, f"{transform:.2f}", nodes, size])) + " |"


def heading() -> list[str]:
    """What was run, on what."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(
        (line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor()
    )
    return [
        "# Gradients of whole networks",
        "",
        "`python benchmarks/onnx_gradients.py`",
        "",
        f"{processor}, {os.cpu_count()} cores, no GPU; Python {platform.python_version()}, onnxruntime "
        f"{ort.__version__}, PyTorch {torch.__version__}, {THREADS} threads in each; inputs 3x{SIDE}x{SIDE} "
        "but for BERT, float32. The gradient of one logit by the input. All settings of a network are called "
        "in turn; times are medians of a batch, ratios medians of the turns' ratios, below 1 where we are "
        "faster.",
        "",
        "*Open*: the gradient graph with its batch (of EfficientNet-Lite0 height and width too) symbolic. "
        "*Fixed*: the same graph in a session whose options fix those sizes "
        "(`add_free_dimension_override_by_name`), which lets ONNX Runtime keep more of it in its blocked "
        "layout. *Eager*: PyTorch, NCHW, parameters frozen. *Best*: the faster of that and BatchNorm folded "
        "into the convolutions with channels last. *Forward*: ONNX Runtime's own inference of the model. "
        "onnx-ad, where it has a gradient, has its batch fixed.",
        "",
        "| network | batch | open: ms | over eager | over best | over forward | over onnx-ad "
        "| fixed: ms | over eager | over best | over forward | transform s | nodes | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]


def main() -> None:
    """Measure all networks and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--only", choices=list(NETWORKS), metavar="NETWORK")
    arguments.add_argument("--seconds", type=float, default=20.0)
    options = arguments.parse_args()
    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)
    lines = heading()
    for name in NETWORKS:
        if options.only in (None, name):
            lines.append(row(name, options.seconds))
            print(lines[-1], flush=True)
    if not options.only and options.seconds == arguments.get_default("seconds"):
        (HERE / "onnx_gradients.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
