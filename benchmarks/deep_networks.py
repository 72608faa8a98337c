"""Deep networks: surrogates against unbiased gradients, at equal cost, with the risk they state.

    OMP_NUM_THREADS=1 python benchmarks/deep_networks.py            # writes benchmarks/deep_networks.md
    OMP_NUM_THREADS=1 python benchmarks/deep_networks.py --quick    # a small truth, few seeds; prints only
    OMP_NUM_THREADS=1 python benchmarks/deep_networks.py --small    # the small nets alone, into that file
    OMP_NUM_THREADS=1 python benchmarks/deep_networks.py --picture  # draws docs/deep-networks.jpg
    OMP_NUM_THREADS=1 python benchmarks/deep_networks.py --torch    # MeanGates of PyTorch; prints only

Costs are in gradients: a forward pass counts a third. Errors are relative L2 errors over seeds, the root of
the mean square, less the noise of the truth itself. The truth of a photo takes minutes and is kept in the
folder for temporary files; delete it there to have it made again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
import onnxruntime as ort
from foundation import machine
from mollikit_onnx import MeanGates, OnnxOracle
from mollikit_onnx.mean_gates.compiled import Compiled, compiled
from onnx import helper
from scipy.special import stdtrit

import mollikit as mk
from mollikit.layout import Layout
from mollikit.surrogates.forward_moments import ForwardMoments, Spread

SIDE = 112


@dataclass(frozen=True)
class Case:
    """A model at an input, its kernel, and the truth with its own relative squared error."""

    name: str
    oracle: OnnxOracle
    x: np.ndarray
    kernel: mk.Kernel
    truth: np.ndarray
    noise: float

    def error(self, gradient: np.ndarray) -> float:
        """Relative squared error, without the part of the truth's own noise."""
        return float(np.square(gradient - self.truth).sum() / self.power - self.noise)

    @property
    def power(self) -> float:
        """Of the truth."""
        return float(np.square(self.truth).sum())


def one_thread() -> ort.SessionOptions:
    """Options of a session on one thread, and no log."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return options


def case(name: str, model: onnx.ModelProto, target: int, x: np.ndarray, share: float, n: int) -> Case:
    """Estimate the truth from n gradients, or find it where an earlier run left it."""
    kernel = mk.Gaussian(mk.OfRange(share))
    oracle = OnnxOracle(model, target=target, session_options=one_thread)
    kept = Path(tempfile.gettempdir()) / f"mollikit-truth-{name.replace(' ', '-')}-{n}.npz"
    if kept.exists():
        truth = mk.Estimate.load(kept)
    else:
        smooth = mk.Pathwise(kernel, mk.Independent())
        truth = smooth.estimate(oracle, x, budget=mk.Evaluations(n), rng=(1, 1))
        truth.save(kept)
    return Case(name, oracle, x, kernel, truth.gradient, truth.relative_error**2)


def photo(name: str, pixels: np.ndarray, target: int, n: int) -> Case:
    """EfficientNet-Lite0 at 112 x 112."""
    import efficientnet_lite0
    import photos
    from PIL import Image

    model = efficientnet_lite0.build(efficientnet_lite0.pretrained_weights(), image_size=(SIDE, SIDE))
    small = Image.fromarray(photos.centre_crop(pixels)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    x = np.asarray((np.asarray(small) / 255 - photos.MEAN) / photos.STD, np.float32).transpose(2, 0, 1)
    return case(name, model, target, np.ascontiguousarray(x), 0.15, n)


@dataclass(frozen=True)
class AveragedDerivatives:
    """Gates as means of the derivative over independent points: what they were before (SmoothDiff)."""

    inputs: mk.Kernel
    forwards: int

    @property
    def cost(self) -> float:
        return self.forwards / 3 + 1

    def surrogate(self, oracle: Any, inputs: Any, *, held: Any = None, rng: Any = None) -> mk.SurrogateMap:
        """For nets whose only nonlinearity is Clip between 0 and 6."""
        linear, open_ = _clip_gates(oracle, inputs.shape)
        total: dict[str, np.ndarray] = {}
        noise, width = np.random.default_rng(rng), 0.15 * np.ptp(inputs)
        for _ in range(self.forwards // 8):
            points = inputs + width * noise.standard_normal((8, *inputs.shape))
            outputs = open_.run(None, {"image": points.astype(np.float32)})
            for port, value in zip(open_.get_outputs(), outputs, strict=True):
                total[port.name] = total.get(port.name, 0) + ((value > 0) & (value < 6)).sum(0, keepdims=True)
        spreads = {}
        for spread in linear.model.spreads:
            gate = total[spread.leaf.removeprefix("mean_gates/").removesuffix(".leaf")] / self.forwards
            spreads[spread.leaf] = Spread(0 * gate, 1 + 0 * gate, 0 * gate, gate)
        moments = ForwardMoments(self.forwards, {}, spreads)
        (gradient,) = linear.gradients(moments, {"image": inputs[None]}, (0, oracle._target[0]))
        return mk.SurrogateMap(np.float64(gradient[0]), self.cost, "averaged derivatives", {})


@dataclass(frozen=True)
class Remembered:
    """A surrogate that makes the map of a seed once, for estimators that are compared on it."""

    surrogate_of: MeanGates
    maps: dict[Any, mk.SurrogateMap] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        return self.surrogate_of.cost

    def surrogate(self, oracle: Any, inputs: Any, *, held: Any = None, rng: Any = None) -> mk.SurrogateMap:
        if rng not in self.maps:
            self.maps[rng] = self.surrogate_of.surrogate(oracle, inputs, held=held, rng=rng)
        return self.maps[rng]


_KEPT: dict[int, tuple[Compiled, ort.InferenceSession]] = {}


def _clip_gates(oracle: OnnxOracle, shape: tuple[int, ...]) -> tuple[Compiled, ort.InferenceSession]:
    if id(oracle) not in _KEPT:
        # The weight of the prior is as good as none, so that the gate is products / squares.
        linear = compiled(oracle._sessions, {"image": (1, *shape)}, 1e-9, (1, 1000))
        model = onnx.load_model_from_string(oracle._sessions.blueprint.model)
        clips = [node.output[0] for node in model.graph.node if node.op_type == "Clip"]
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in clips)
        _KEPT[id(oracle)] = linear, ort.InferenceSession(model.SerializeToString(), one_thread())
    return _KEPT[id(oracle)]


def over_seeds(made: Callable[[int], tuple[np.ndarray, float | None, float]], there: Case, seeds: int) -> str:
    """A row of a table: cost, error, its spread, the stated over the real squared error."""
    errors, stated, costs = [], [], []
    for seed in range(seeds):
        gradient, risk, cost = made(seed)
        errors.append(there.error(gradient))
        costs.append(cost)
        if risk is not None:
            stated.append(risk / there.power)
    mean = np.mean(errors)
    ratio = "-"
    if stated:
        spread = np.std(np.array(stated) / mean, ddof=1)
        ratio = f"{np.mean(stated) / mean:.2f} (each ± {spread:.2f})"
    each = np.std(np.sqrt(np.maximum(errors, 0)), ddof=1)
    error = f"**{np.sqrt(max(mean, 0)):.3f}** ± {each:.3f}"
    return f"{np.mean(costs):.1f} | {error} | {ratio}"


HEAD = "| what | cost | error (each ±) | stated / real squared error |\n" + "| --- " * 4 + "|"


def biased(estimator: Any, there: Case, n: int) -> Callable[[int], tuple[np.ndarray, float, float]]:
    """Run an estimator from folds."""

    def made(seed: int) -> tuple[np.ndarray, float, float]:
        found = estimator.estimate(there.oracle, there.x, budget=mk.Evaluations(n), rng=(2, seed))
        return found.gradient, found.risk, found.n_evaluations

    return made


def plain(there: Case, n: int) -> Callable[[int], tuple[np.ndarray, float, float]]:
    """Run Pathwise on independent points."""

    def made(seed: int) -> tuple[np.ndarray, float, float]:
        smooth = mk.Pathwise(there.kernel, mk.Independent())
        found = smooth.estimate(there.oracle, there.x, budget=mk.Evaluations(n), rng=(3, seed))
        return found.gradient, float(np.square(found.standard_error).sum()), n

    return made


def alone(surrogate: Any, there: Case) -> Callable[[int], tuple[np.ndarray, None, float]]:
    """Make a surrogate without an audit."""

    def made(seed: int) -> tuple[np.ndarray, None, float]:
        found = surrogate.surrogate(there.oracle, there.x, rng=4000 + seed)
        return found.gradient, None, found.n_evaluations

    return made


def deep(there: Case, seeds: int, lengths: Sequence[int]) -> list[str]:
    """Tables of one photo."""
    k, independent = there.kernel, mk.Pathwise(there.kernel, mk.Independent())
    lines = [f"## EfficientNet-Lite0, {there.name}", "", HEAD]

    def add(name: str, made: Callable[[int], Any], repeats: int) -> None:
        lines.append(f"| {name} | {over_seeds(made, there, repeats)} |")
        print(lines[-1], file=sys.stderr, flush=True)

    for n in (16, 64, 256):
        add(f"independent gradients, n = {n}", plain(there, n), 3)
    for n in (64, 256):
        add(f"`Shrunk`, n = {n}", biased(mk.Shrunk(independent), there, n), 3)
    for n in lengths:
        add(f"averaged derivatives, {n} passes", alone(AveragedDerivatives(k, n), there), 2)
    for n in lengths:
        add(f"`MeanGates`, {n} passes, not audited", alone(MeanGates(k, n), there), 3)
    for passes, n in ((8, 16), (32, 16), (64, 32), (128, 64)):
        gates = Remembered(MeanGates(k, passes))
        for kind in (mk.Audited, mk.Combined):
            made = biased(kind(independent, gates), there, n + int(np.ceil(gates.cost)))
            add(f"`{kind.__name__}`, {passes} passes, {n} gradients", made, seeds)
    return [*lines, ""]


_SMALL_NETS = "## Small nets"
SURROGATES = 100
SMALL = (
    "| what | error | its square, over the mean's | of it above known weights | stated / real | covered |\n"
)
SMALL += "| --- " * 6 + "|"


def folds_of(there: Case, n: int, seed: int, count: int = 8) -> np.ndarray:
    """Independent unbiased maps (count, D), of n independent gradients together."""
    noise = np.random.default_rng((2, seed)).standard_normal((n, *there.x.shape))
    points = (there.x + there.kernel.widths(there.x) * noise).astype(np.float32)
    _, gradients = there.oracle.value_and_gradient(points)
    return gradients.astype(np.float64).reshape(count, n // count, -1).mean(axis=1)


def excess_risk(there: Case, n: int, seeds: int) -> list[str]:
    """Rows of the estimators over many seeds: real and least risk, relative to that of the mean, and stated.

    A ratio is of means over seeds, with its standard error by the delta method; covered is the share of
    seeds at which the interval of 95% holds the real squared error. The seeds share `SURROGATES` maps.
    """
    independent = mk.Pathwise(there.kernel, mk.Independent())
    layout, gates = Layout.of(there.x), MeanGates(there.kernel, 32)
    maps = [gates.surrogate(there.oracle, there.x, rng=seed).gradient.ravel() for seed in range(SURROGATES)]
    kinds = {
        "Shrunk": mk.Shrunk(independent),
        "Combined": mk.Combined(independent, gates),
        "Audited": mk.Audited(independent, gates),
    }
    real, told = ({name: np.empty(seeds) for name in ("mean", *kinds)} for _ in range(2))
    covered = dict.fromkeys(kinds, 0)
    for seed in range(seeds):
        folds = folds_of(there, n, seed)
        real["mean"][seed] = there.error(folds.mean(axis=0).reshape(there.x.shape))
        for name, estimator in kinds.items():
            found = estimator._fit(folds, None if name == "Shrunk" else maps[seed % SURROGATES], layout)
            squared = real[name][seed] = there.error(found.estimate.reshape(there.x.shape))
            told[name][seed] = found.total_risk / there.power
            about = found.uncertainty
            half = stdtrit(about.degrees_of_freedom, 0.975) * about.standard_error / there.power
            covered[name] += abs(told[name][seed] - squared) <= half
    mean = real["mean"].mean()
    lines = [f"| {there.name}: mean of {n} gradients | {np.sqrt(mean):.4f} | 1 | - | - | - |"]
    for name in kinds:
        ratio = told[name].mean() / real[name].mean()
        error = np.std(told[name] - ratio * real[name], ddof=1) / np.sqrt(seeds) / real[name].mean()
        least = "-" if name != "Shrunk" else f"{(real[name].mean() - wiener_risk(there, n)) / mean:+.3f}"
        lines.append(
            f"| {there.name}: `{name}`, {n} gradients | {np.sqrt(real[name].mean()):.4f} "
            f"| {real[name].mean() / mean:.3f} | {least} | {ratio:.2f} ± {error:.2f} "
            f"| {covered[name] / seeds:.1%} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def wiener_risk(there: Case, n: int) -> float:
    """The relative risk of Wiener's weights if signal and noise of each band were known."""
    bands, layout = mk.CosineBands(), mk.Pathwise(there.kernel)._perturbation(there.x).layout
    smooth = mk.Pathwise(there.kernel, mk.Independent())
    view = {"bands": lambda g: bands.coefficients(g.reshape(len(g), -1), layout)}
    found = smooth.estimate(there.oracle, there.x, budget=mk.Evaluations(8192), views=view, rng=(5, 5))
    moments, labels = found.views["bands"], bands.labels(layout)
    noise = np.bincount(labels, np.square(moments.standard_error)) * found.n_evaluations / n
    signal = np.bincount(labels, np.square(bands.coefficients(there.truth.ravel(), layout)))
    return float((signal * noise / (signal + noise)).sum() / there.power)


def picture(there: Case, path: Path) -> None:
    """Draw the truth and maps of about equal cost, channels summed."""
    import matplotlib.pyplot as plt

    k, independent = there.kernel, mk.Pathwise(there.kernel, mk.Independent())
    gates = MeanGates(k, 32)
    combined = mk.Combined(independent, gates)
    maps = {
        "truth: 49,152 gradients": there.truth,
        "16 gradients": plain(there, 16)(0)[0],
        "64 gradients": plain(there, 64)(0)[0],
        "`MeanGates`, 32 passes:\nthe cost of 12": alone(gates, there)(0)[0],
        "`Combined`, 16 gradients more:\nthe cost of 28": biased(combined, there, 28)(0)[0],
    }
    figure, axes = plt.subplots(1, 1 + len(maps), figsize=(15, 3.3), layout="constrained")
    image = there.x.transpose(1, 2, 0)
    axes[0].imshow((image - image.min()) / np.ptp(image))
    axes[0].set_title("input, 112 x 112", fontsize=9)
    for axis, (name, gradient) in zip(axes[1:], maps.items(), strict=True):
        seen = gradient.sum(0)
        limit = np.percentile(np.abs(seen), 99.5)
        axis.imshow(seen, cmap="RdBu_r", vmin=-limit, vmax=limit)
        error = "" if "truth" in name else f"\nerror {100 * there.error(gradient) ** 0.5:.0f}%"
        axis.set_title(name.replace("`", "") + error, fontsize=9)
    for axis in axes:
        axis.axis("off")
    figure.savefig(path, dpi=85, pil_kwargs={"quality": 88})


def by_torch(there: Case, seeds: int) -> None:
    """Print what mean gates of PyTorch err by and cost, beside those of ONNX Runtime for the same points."""
    import mollikit_torch
    import torch

    torch.set_num_threads(1)
    oracle = mollikit_torch.TorchOracle(nets.efficientnet_torch(folded=False, side=SIDE), target=282)
    smooth = mk.Pathwise(there.kernel, mk.Independent(), block=8)

    def seconds(run: Callable[[], Any]) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    for passes in (8, 32, 64):
        gates = mollikit_torch.MeanGates(there.kernel, passes)
        other = MeanGates(there.kernel, passes)
        first = seconds(lambda gates=gates: gates.surrogate(oracle, there.x, rng=0))
        errors, apart, ratios = [], [], []
        for seed in range(seeds):
            found = gates.surrogate(oracle, there.x, rng=seed).gradient
            errors.append(there.error(found))
            same = other.surrogate(there.oracle, there.x, rng=seed).gradient
            apart.append(np.linalg.norm(found - same) / np.linalg.norm(same))
            own = seconds(lambda gates=gates, seed=seed: gates.surrogate(oracle, there.x, rng=seed))
            plain = seconds(lambda: smooth.estimate(oracle, there.x, budget=mk.Evaluations(64), rng=0))
            ratios.append(64 * own / plain)
        print(
            f"{passes} passes: error {np.sqrt(np.mean(errors)):.3f}; from ONNX Runtime's {max(apart):.1e}; "
            f"the processor time of {min(ratios):.0f} to {max(ratios):.0f} gradients, {first:.1f} s at first"
        )


def small(name: str, net: Any, side: int, shape: tuple[int, ...], n: int) -> Case:
    """A net trained on digits, at the first of them."""
    images, _ = nets.digits(side)
    return case(name, nets.to_onnx(net, shape), 3, images[3].reshape(shape), 0.1, n)


def small_nets(seeds: int) -> list[str]:
    """Rows of the small nets."""
    about = f"Noise 10% of the range; seeds: {10 * seeds} on the MLP, {seeds} on the CNN; `MeanGates` of 32"
    about += f" passes, {SURROGATES} maps of them; the folds are those of independent gradients."
    lines = [_SMALL_NETS, "", about, "", SMALL]
    for there, many in (
        (small("MLP, d = 64", nets.mlp(), 8, (64,), 1 << 17), 10 * seeds),
        (small("CNN, d = 784", nets.cnn(), 28, (1, 28, 28), 1 << 16), seeds),
    ):
        for budget in (16, 64):
            lines += excess_risk(there, budget, many)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small truth and few seeds; prints only")
    parser.add_argument("--small", action="store_true", help="the small nets alone")
    parser.add_argument("--picture", action="store_true", help="draw docs/deep-networks.jpg alone")
    parser.add_argument("--torch", action="store_true", help="the mean gates of PyTorch alone; prints only")
    arguments = parser.parse_args()
    quick = arguments.quick
    n, seeds, many = (512, 3, 8) if quick else (49152, 6, 2000)
    figures = Path(__file__).with_suffix(".md")
    if arguments.small:
        rest, _, _ = figures.read_text().partition(_SMALL_NETS)
        figures.write_text(rest + "\n".join(small_nets(many)) + "\n")
        return
    import photos

    if arguments.torch:
        by_torch(photo("chelsea, tiger cat", photos.chelsea(), 282, 4096), 3)
        return
    command = "`OMP_NUM_THREADS=1 python benchmarks/deep_networks.py`"
    lines = ["# Deep networks: figures of one run", "", command, "", f"{machine()[0]}; one thread a session."]
    lines += ["", *(__doc__ or "").split("\n\n")[2:3]]
    lines += ["The chelsea photo chose the defaults of `MeanGates`; the coffee photo did not.", ""]
    chelsea = photo("chelsea, tiger cat", photos.chelsea(), 282, n)
    if arguments.picture:
        picture(chelsea, Path(__file__).parents[1] / "docs" / "deep-networks.jpg")
        return
    print(f"truth of {chelsea.name}: noise {chelsea.noise**0.5:.3f}", file=sys.stderr, flush=True)
    lines += deep(chelsea, seeds, (8, 16, 32, 64, 128))
    coffee = photo("coffee, espresso", photos.coffee(), 967, n // 12)
    print(f"truth of {coffee.name}: noise {coffee.noise**0.5:.3f}", file=sys.stderr, flush=True)
    lines += deep(coffee, max(seeds // 2, 3), (16, 64))
    lines += small_nets(many)
    text = "\n".join(lines) + "\n"
    print(text)
    if not quick:
        figures.write_text(text)


if __name__ == "__main__":
    main()
