"""What TensorFlowOracle, JaxOracle and the estimator add to a bare loop in their frameworks, at 224x224.

    python benchmarks/tensorflow_jax_overhead.py            # writes benchmarks/tensorflow_jax_overhead.md
    python benchmarks/tensorflow_jax_overhead.py --quick    # fewer repeats, prints only

Times are compared interleaved in one process, as the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import foundation
import jax
import keras
import numpy as np
import tensorflow as tf
from jax import numpy as jnp
from mollikit_jax import JaxOracle
from mollikit_tensorflow import TensorFlowOracle

import mollikit as mk

HERE = Path(__file__).parent
TARGET, WIDTH = 3, 0.3


@dataclass(frozen=True)
class Case:
    """A model as an oracle, and by hand.

    Attributes
    ----------
    name : str
    oracle
    loop : callable
        (n, batch) to the mean of n gradients at points that the framework draws itself.
    calls : callable
        (points, times): the model's part alone, gradients of the same points again and again.
    shape : tuple of int
    """

    name: str
    oracle: Any
    loop: Callable[[int, int], Any]
    calls: Callable[[np.ndarray, int], None]
    shape: tuple[int, ...]


def image(shape: tuple[int, ...]) -> np.ndarray:
    """An input of the models' range."""
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def tensorflow() -> Case:
    """MobileNetV2 of Keras with random weights, and what one writes by hand at its best."""
    keras.utils.set_random_seed(0)
    shape = (224, 224, 3)
    model = keras.applications.MobileNetV2(shape, weights=None, classifier_activation=None)

    @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
    def gradients(points: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            values = model(points, training=False)[:, TARGET]
        return tape.gradient(values, points)

    def loop(n: int, batch: int) -> Any:
        x, generator = tf.constant(image(shape)), tf.random.Generator.from_seed(0)
        total = tf.zeros(shape)
        for _ in range(n // batch):
            points = x + WIDTH * generator.normal((batch, *shape))
            total += tf.reduce_sum(gradients(points), 0)
        return (total / n).numpy()

    def calls(points: np.ndarray, times: int) -> None:
        for _ in range(times):
            gradients(tf.constant(points)).numpy()

    return Case("MobileNetV2 (Keras), 224x224x3", TensorFlowOracle(model, target=TARGET), loop, calls, shape)


def residual(params: dict[str, Any], images: Any) -> Any:
    """Logits (n, 10) of a small residual net."""
    layout = ("NHWC", "HWIO", "NHWC")

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        return jax.lax.conv_general_dilated(
            x, params[name], (stride, stride), "SAME", dimension_numbers=layout
        )

    x = jax.nn.relu(conv(images, "stem", 4))
    for k in range(4):
        x = jax.nn.relu(conv(x, f"down{k}", 2 if k else 1))
        x = x + conv(jax.nn.relu(conv(x, f"a{k}")), f"b{k}")
    return x.mean((1, 2)) @ params["head"]


def jax_case() -> Case:
    """A small residual net, and what one writes by hand at its best."""
    shape, rng = (224, 224, 3), np.random.default_rng(0)

    def kernel(size: int, before: int, after: int) -> Any:
        drawn = rng.standard_normal((size, size, before, after)) * np.sqrt(2 / (size * size * before))
        return jnp.asarray(drawn, jnp.float32)

    params, before = {"stem": kernel(7, 3, 32)}, 32
    for k, after in enumerate((32, 64, 128, 256)):
        params |= {f"down{k}": kernel(3, before, after)}
        params |= {f"{name}{k}": kernel(3, after, after) * 0.5 for name in "ab"}
        before = after
    params["head"] = jnp.asarray(rng.standard_normal((256, 10)) / 16, jnp.float32)

    gradients = jax.jit(jax.grad(lambda x: residual(params, x)[:, TARGET].sum()))

    def loop(n: int, batch: int) -> Any:
        x, key = jnp.asarray(image(shape)), jax.random.key(0)
        total = jnp.zeros(shape)
        for k in range(n // batch):
            points = x + WIDTH * jax.random.normal(jax.random.fold_in(key, k), (batch, *shape))
            total += gradients(points).sum(0)
        return np.asarray(total / n)

    def calls(points: np.ndarray, times: int) -> None:
        for _ in range(times):
            gradients(points).block_until_ready()

    return Case(
        "residual net (JAX), 224x224x3", JaxOracle(residual, params, target=TARGET), loop, calls, shape
    )


def compared(case: Case, n: int, batches: tuple[int, ...], repeats: int) -> str:
    """Estimator over bare loop, and oracle over bare calls, as a line of the table."""
    times = {}
    for batch in batches:
        case.loop(n, batch)
        began = time.perf_counter()
        case.loop(n, batch)
        times[batch] = time.perf_counter() - began
    best = min(times, key=times.__getitem__)
    x, smooth, budget = image(case.shape), mk.Pathwise(mk.Gaussian(WIDTH), block=best), mk.Evaluations(n)
    points = np.random.default_rng(0).standard_normal((best, *case.shape)).astype(np.float32)

    def calls() -> None:
        for _ in range(n // best):
            case.oracle.value_and_gradient(points)

    whole, ours, theirs = foundation.ratios(
        lambda: smooth.estimate(case.oracle, x, budget=budget, rng=0), lambda: case.loop(n, best), repeats
    )
    part, *_ = foundation.ratios(calls, lambda: case.calls(points, n // best), repeats)
    return f"| {case.name} | {n} | {best} | {ours:.3f} | {theirs:.3f} | **{whole:.3f}** | {part:.3f} |"


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats; print, do not write")
    quick = parser.parse_args().quick
    repeats = 3 if quick else 9
    lines = [
        "# Overhead over TensorFlow and JAX",
        "",
        *foundation.machine(),
        "",
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, JAX {jax.__version__}. The bare loops are "
        "compiled as the oracles are (tf.function with an open batch axis; jax.jit), draw their own normals "
        "by the framework and keep a mean; they have no error bar. Both at the bare loop's best batch of "
        f"those tried; ratios are medians of {repeats} interleaved pairs. Oracle: `value_and_gradient` over "
        "the compiled gradient on the same points.",
        "",
        "| model | N | batch | estimator s | bare s | estimator / bare | oracle / bare |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(compared(make(), 32, (8, 16), repeats) for make in (tensorflow, jax_case)),
    ]
    print("\n".join(lines))
    if not quick:
        path = HERE / "tensorflow_jax_overhead.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
