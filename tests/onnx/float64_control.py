"""Scan, Loop and GatherElements as the standard words them; onnx's reference covers a part of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


class Scan(OpRun):
    """onnx's knows neither directions nor axes."""

    def need_context(self) -> bool:
        return True

    def _run(
        self, *args: Any, context: Any = None, body: Any = None, bindings: Any = None, **given: Any
    ) -> Any:
        n_scanned = given["num_scan_inputs"]
        states, sequences = list(args[:-n_scanned]), list(args[-n_scanned:])
        names, results = self.body.output_names, []
        axes = given["scan_input_axes"] or [0] * n_scanned
        backwards = given["scan_input_directions"] or [0] * n_scanned
        for k, x in enumerate(sequences):
            x = np.moveaxis(x, axes[k], 0)
            sequences[k] = x[::-1] if backwards[k] else x
        for slices in zip(*sequences, strict=True):
            feeds = dict(zip(self.body.input_names, [*states, *slices], strict=True))
            outputs = self._run_body({**(context or {}), **feeds}, bindings=bindings)
            states = list(outputs[: len(states)])
            results.append(outputs[len(states) :])
        n_results = len(names) - len(states)
        axes = given["scan_output_axes"] or [0] * n_results
        backwards = given["scan_output_directions"] or [0] * n_results
        for k in range(n_results):
            steps = [result[k] for result in results]
            states.append(np.stack(steps[::-1] if backwards[k] else steps, axes[k]))
        return tuple(states)


class Loop(OpRun):
    """onnx's joins scan outputs along an axis of theirs."""

    def need_context(self) -> bool:
        return True

    def _run(
        self, most: Any, going: Any, *states: Any, context: Any = None, bindings: Any = None, **_: Any
    ) -> Any:
        results: list[Any] = []
        n_states = len(self.body.input_names) - 2
        while (going is None or going) and (most is None or len(results) < most):
            given = [np.array(len(results)), np.array(True), *states]
            feeds = {**(context or {}), **dict(zip(self.body.input_names, given, strict=True))}
            going, *outputs = self._run_body(feeds, bindings=bindings)
            states = tuple(outputs[:n_states])
            results.append(outputs[n_states:])
        return (*states, *(np.stack(steps) for steps in zip(*results, strict=True)))


class GatherElements(OpRun):
    """onnx's wants indices as large as the data."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
        places = list(np.indices(indices.shape))
        places[axis] = indices
        return (data[tuple(places)],)


CONTROL = [Scan, Loop, GatherElements]
