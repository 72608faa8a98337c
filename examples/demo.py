"""Explain two photos with EfficientNet-Lite0 on ONNX Runtime, without a deep-learning framework.

    python examples/demo.py [--seconds 30]

writes demo-output/ beside this folder: the model, the photos, and for each a picture, its arrays and the
record of the run. It does what these commands would do:

    python examples/efficientnet_lite0.py demo-output/efficientnet_lite0.onnx
    mollikit explain demo-output/efficientnet_lite0.onnx chelsea.png china.png --seconds 30 --out ...
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import efficientnet_lite0
import photos
from PIL import Image

from mollikit.cli import main as mollikit

FOLDER = Path(__file__).resolve().parents[1] / "demo-output"


def main(arguments: list[str] | None = None) -> int:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description="Explain two photos with EfficientNet-Lite0.")
    parser.add_argument("--seconds", type=float, default=30, help="for each photo (default: 30)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: demo-output/ of the repository")
    asked = parser.parse_args(arguments)

    asked.out.mkdir(parents=True, exist_ok=True)
    out = Path(os.path.relpath(asked.out))
    model = out / "efficientnet_lite0.onnx"
    print("Building EfficientNet-Lite0 from its published weights", flush=True)
    efficientnet_lite0.main([str(model)])
    files = []
    for name, photo in (("chelsea", photos.chelsea()), ("china", photos.china())):
        files.append(out / f"{name}.png")
        Image.fromarray(photo).save(files[-1])

    print(f"Smoothing its gradient at two photos, {asked.seconds:g} seconds each", flush=True)
    explained = out / "explained"
    words = ["--seconds", str(asked.seconds), "--seed", "0", "--out", str(explained), "--force"]
    code = mollikit(["explain", str(model), *map(str, files), *words])
    if code == 0:
        pictures = " and ".join(str(explained / file.name) for file in files)
        print(f"\nThe pictures are {pictures}; the whole took {time.perf_counter() - began:.0f} s.")
    return code


if __name__ == "__main__":
    sys.exit(main())
