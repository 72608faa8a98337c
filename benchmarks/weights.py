"""Which design is best where weights are smoothed: how models are drawn, and how many inputs share one.

    python benchmarks/weights.py
    python benchmarks/weights.py --rows 8    # a batch, in the place of the table under its heading

The variance of one evaluation is |standard error|^2 times the evaluations, over all coordinates, relative to
independent models, with one independent input each where inputs are smoothed too. Times are of one core. A
design of which the budget holds fewer than 8 groups is left out. Writes weights.md.

With --rows: `estimate_batch`, whose rows share each model, against `estimate` of the rows one after the
other, to the same bits. Seconds are of the process, the fewest of two runs in processes of their own; peak
memory is beyond what the process holds with model and inputs in place. The machine was shared with others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nets
import numpy as np
import torch
from mollikit_torch import TorchOracle

import mollikit as mk

INPUTS = mk.Gaussian(mk.OfRange(0.15))
LAWS = {level: mk.Gaussian(mk.OfMagnitude(level)) for level in (0.05, 0.2)}
MODELS = {"independent": mk.Independent(), "antithetic": mk.Antithetic(), "recentred (8)": mk.Recentred(8)}


def designs():
    """Name, options and evaluations of a group."""
    for name, models in MODELS.items():
        yield f"weights, {name}", {"weights_sampler": models}, models.group_size(1)
    plain = {"inputs": INPUTS, "sampler": mk.Independent(), "weights_sampler": mk.Independent()}
    yield "both, independent, 1 input", {**plain, "inputs_per_model": 1}, 1
    for name, models in MODELS.items():
        for count in (8, 32):
            options = {"inputs": INPUTS, "weights_sampler": models, "inputs_per_model": count}
            yield f"both, {name}, {count} recentred inputs", options, count * models.group_size(1)


def subjects():
    images, _ = nets.digits(8)
    yield "MLP, d = 64", nets.mlp(), images[0].reshape(64), 1 << 11, LAWS
    images, _ = nets.digits(28)
    yield "CNN, d = 784", nets.cnn(), images[0], 1 << 10, LAWS
    photo = nets.chelsea()[:, 56:168, 56:168].copy()
    yield "EfficientNet-Lite0, d = 37632", nets.efficientnet_torch(folded=False), photo, 128, [0.05]


def measured(oracle, x, level, budget, options):
    smooth = mk.Pathwise(weights=LAWS[level], **options)
    began = time.process_time()
    estimate = smooth.estimate(oracle, x, budget=mk.Evaluations(budget), rng=0)
    n = estimate.n_evaluations
    return np.square(estimate.standard_error).sum() * n, (time.process_time() - began) / n, estimate


def batches(rows):
    """By name: the net's maker, its inputs, the noise and the evaluations of a row."""
    pictures = nets.digits(8)[0][:rows].reshape(rows, 64), nets.digits(28)[0][:rows]
    photo = nets.chelsea()
    photos = np.stack([photo[:, 8 * k : 8 * k + 112, 56:168] for k in range(rows)])
    return {
        "MLP, d = 64": (nets.mlp, pictures[0], 0.2, 128),
        "CNN, d = 784": (nets.cnn, pictures[1], 0.2, 128),
        "EfficientNet-Lite0, d = 37632": (lambda: nets.efficientnet_torch(folded=False), photos, 0.05, 8),
    }


def batch_measured(name, rows, both, together):
    """Seconds, peak memory beyond the model in megabytes, and the gradients, in a fresh process."""
    torch.set_num_threads(1)
    make, inputs, level, budget = batches(rows)[name]
    oracle = TorchOracle(make(), target="top")
    oracle.predict(inputs)
    smooth = mk.Pathwise(INPUTS if both else None, weights=LAWS[level])
    budget = mk.Evaluations(4 * budget if both else budget)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if together:
        estimates = smooth.estimate_batch(oracle, inputs, budget=budget, rng=0)
    else:
        estimates = [smooth.estimate(oracle, x, budget=budget, rng=(0, k)) for k, x in enumerate(inputs)]
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return took, (peak - before) / 1024, [estimate.gradient.tobytes() for estimate in estimates]


def in_processes(rows, repeats=2):
    """The lines of the table: time and memory of a row in a batch, and by itself."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        for name in batches(rows):
            for both in (False, True):
                runs = {
                    together: [
                        fresh.submit(batch_measured, name, rows, both, together).result()
                        for _ in range(repeats)
                    ]
                    for together in (False, True)
                }
                (apart, alone, bits), (shared, held, same) = (min(runs[way]) for way in (False, True))
                assert same == bits
                times = f"{apart / rows:.2f} | {shared / rows:.2f} | {apart / shared:.1f}"
                yield f"| {name} | {'both' if both else 'weights'} | {times} | {alone:.0f} | {held:.0f} |"


def write_batches(rows):
    head = (
        "| net | smoothed | s a row, by itself | in the batch | ratio | peak MB, by itself | in the batch |"
    )
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- |"]
    for line in in_processes(rows):
        lines.append(line)
        print(line, flush=True)
    file = Path(__file__).with_suffix(".md")
    kept = file.read_text().split("\n## A batch\n")[0]
    told = __doc__.split("\n\n")[3].strip().replace("With --rows: ", "")
    file.write_text(f"{kept}\n## A batch\n\n{told}\n\n{rows} rows:\n\n" + "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="measure a batch of so many rows instead")
    asked = parser.parse_args()
    if asked.rows:
        write_batches(asked.rows)
        return
    torch.set_num_threads(1)
    lines = [
        "| net | weight noise | design | variance of an evaluation | ms an evaluation | variance x time |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, net, x, budget, levels in subjects():
        for level in levels:
            oracle = TorchOracle(net, target="top").anchored(x)
            first = {}
            for design, options, group in designs():
                if group > budget // 8:
                    continue  # too few groups to tell their spread
                variance, seconds, estimate = measured(oracle, x, level, budget, options)
                kind = design.split(",")[0]
                one, took = first.setdefault(kind, (variance, seconds))
                lines.append(
                    f"| {name} | {level} | {design} | {variance / one:.3f} | {1e3 * seconds:.2f} | "
                    f"{variance * seconds / (one * took):.3f} |"
                )
                print(lines[-1], f"error {estimate.relative_error:.3g}", flush=True)
    file = Path(__file__).with_suffix(".md")
    batch = file.read_text().partition("\n## A batch\n")
    file.write_text(__doc__.split("\n\n")[2] + "\n\n" + "\n".join(lines) + "\n" + "".join(batch[1:]))


if __name__ == "__main__":
    main()
