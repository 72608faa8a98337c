"""Gradients by ONNX Runtime's CUDA provider: are they right, where do their nodes run, what do they take?

    python benchmarks/onnx_cuda.py all                  # all parts on CUDA; writes benchmarks/onnx_cuda.md
    python benchmarks/onnx_cuda.py time                 # one part; replaces its section
    python benchmarks/onnx_cuda.py all --provider CPUExecutionProvider   # does the script run? prints only

Each part is a process with a time limit of its own, and what it found before it ended stays in the file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "adapters"), str(HERE.parent / "examples")]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
import torch  # noqa: E402
from mollikit_onnx.runtime.providers import check_providers  # noqa: E402
from on_cuda import conformance, masks, networks, probe  # noqa: E402
from on_cuda.device import CPU, CUDA, Device  # noqa: E402
from on_cuda.report import Section  # noqa: E402
from on_cuda.workers import Failed, each_in_workers  # noqa: E402

# Seconds after which a part takes up nothing further.
PARTS = {"masks": 20.0, "probe": 40.0, "placement": 60.0, "conformance": 90.0, "time": 140.0}
# For what a part is at when its time is up.
GRACE = 60.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--provider", choices=[CUDA, CPU], default=CUDA)
    parser.add_argument("--write", type=Path, help="the report; onnx_cuda.md beside this file on CUDA")
    parser.add_argument("--workers", type=int, default=min(12, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, help="another time limit")
    parser.add_argument("--only", default="", help="cases or networks whose names contain this")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 1])
    return parser.parse_args()


def machine() -> str:
    """The GPU by its driver's tool: asking CUDA here would keep forked processes from it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


def starts(device: Device) -> None:
    """Refuse thousands of failures where the provider is missing; asked in a process of its own."""
    until = time.monotonic() + 60
    ((_, found),) = each_in_workers(lambda _: check_providers([device.provider]), [0], 1, 60, until)
    if isinstance(found, Failed):
        raise SystemExit(found.reason)


def everything() -> None:
    """Run the parts in turn; none ends the others."""
    for part, seconds in PARTS.items():
        command = [sys.executable, __file__, part, *(word for word in sys.argv[1:] if word != "all")]
        try:
            code = subprocess.run(command, timeout=seconds + GRACE, check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"killed after {seconds + GRACE:.0f} s"
        if code:
            print(f"{part} ended: {code}", flush=True)


def one(asked: argparse.Namespace) -> None:
    """Run a part."""
    device = Device(asked.provider)
    if device.provider == CUDA:
        # Loaded without a device being touched: processes that are forked later may start it.
        ort.preload_dlls()
    file = asked.write or (HERE / "onnx_cuda.md" if device.provider == CUDA else None)
    section = Section(asked.part.capitalize(), file)
    seconds = asked.seconds or PARTS[asked.part]
    parts: dict[str, Callable[[], None]] = {
        "masks": partial(masks.run, device, section, seconds),
        "probe": partial(probe.run, device, section, seconds, asked.only),
        "placement": partial(networks.place, device, section, seconds, asked.only),
        "conformance": partial(conformance.run, device, section, asked.workers, seconds, asked.only),
        "time": partial(networks.measure, device, section, seconds, asked.only, asked.batches),
    }
    if asked.part == "conformance":
        starts(device)
    section.say(
        f"{machine()}, {os.cpu_count()} cores; {device.provider}; onnxruntime {ort.__version__}, "
        f"onnx {onnx.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}.",
        "",
    )
    parts[asked.part]()


if __name__ == "__main__":
    chosen = arguments()
    if chosen.part == "all":
        everything()
    else:
        one(chosen)
