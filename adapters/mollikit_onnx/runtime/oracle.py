from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from mollikit.batches import one_row
from mollikit.estimators.answers import by_points
from mollikit.estimators.base import Setting
from mollikit.moments import Tally
from mollikit.oracles import Array, Points
from mollikit.targeted import Targeted
from mollikit.targets import index, read_targets
from mollikit_onnx.loading import ModelFileError, data_files, load_light
from mollikit_onnx.normal_form.validity import check_nodes
from mollikit_onnx.resident.asking import ResidentBlocks, tallies
from mollikit_onnx.resident.refusal import check_resident
from mollikit_onnx.runtime.binding import Bound, check_bound, is_bound, shape_of
from mollikit_onnx.runtime.blocks import blocks_around, one_row_beside
from mollikit_onnx.runtime.providers import Provider, check_providers, lives_on
from mollikit_onnx.runtime.repetition import copy_of
from mollikit_onnx.runtime.selection import COORDINATES
from mollikit_onnx.runtime.sessions import Blueprint, Options, ReweightedSessions, Sessions, digest
from mollikit_onnx.runtime.signature import Port, Signature
from mollikit_onnx.runtime.targets import Target, coordinates, fixed_target
from mollikit_onnx.runtime.weights import replacements


class OnnxOracle(Targeted):
    """An ONNX model on stock ONNX Runtime as an oracle: values and gradients of one element of an output.

    The gradient is a graph of its own (`mollikit_onnx.vjp`) with the target's selection inside and
    without the nodes that only the outputs need; ONNX Runtime optimises it once. Sessions are built on
    first use and are safe from any number of threads. An oracle can be pickled; a process builds its
    sessions once, whatever the number of copies it receives.

    A call holds no lock of Python's; Ctrl-C takes effect when the batch in progress returns, and leaves
    the oracle as it was.

    Points may be OrtValues, on a GPU already: outputs, values and gradients then are too, on the same device.

    The bits of a gradient depend on the number of intra-op threads and on the batch size, as ONNX
    Runtime's sums do: fix the threads in ``session_options`` where bits must be the same on machines of
    unequal size.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        The model; not changed. Weights in data files of 256 MB or more stay there, mapped into memory, and
        the files stay where they are as long as the oracle or a pickled copy of it lives. An input whose
        batch axis is fixed at 1 makes the oracle run row by row:
        right, but slower than a model exported with a dynamic batch axis.
    target : int, tuple of int, "top" or None
        The element of the output to explain: a class of an output (m, n_classes); an index per axis
        behind the batch for outputs of higher rank; None for outputs (m,) or (m, 1). "top" is the
        largest element on the clean input, fixed by `anchored`. An array ``target`` held with the rows,
        int64 (m,) or (m, n_axes), takes precedence.
    wrt : sequence of str, optional
        The inputs to differentiate, by default every input of floats. With one, points and gradients are
        arrays (m, *shape); with several, mappings by input name. All other inputs of the model are held.
    output : str, optional
        The output to explain, by default the only one that holds floats.
    providers : sequence of str or of (str, mapping)
        Execution providers by preference, each verified to be at work.
    session_options : onnxruntime.SessionOptions or callable, optional
        Options of every session, or a module-level function that makes them, which can be pickled. By
        default ONNX Runtime's own, graph optimisation at its highest level.
    values : bool
        Whether `value_and_gradient` gives values beside the gradients; None takes their place otherwise.
    straight_through : bool
        Whether gradients pass the rounding of a quantised model, as in `vjp`; such a model is refused
        otherwise, when its gradient is asked for.
    resident : bool, optional
        Draw, move and reduce the points of `Pathwise` inside the graph of the gradient, so that no batch of
        points crosses to the host: the same law by a generator of the graph's own, hence other bits. By
        default so where CUDA is the first provider and the model has a dynamic batch axis. Samplers are then
        `Independent`, `Antithetic` and `Recentred`, views are made of `Input`, `ChannelSum` and `Pool`, and
        kernels have no gap in their density.

    Raises
    ------
    ModelFileError
        The model cannot be read, has no float input, or has a fixed batch axis above 1.
    ProviderError
        A provider is unknown, not installed or not at work.
    ValueError
        A name or a target that the model does not have, ``session_options`` cannot be given as an object, or
        ``resident=True`` for a model that runs row by row.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
    ...                            'squares (float[n, 3] x) => (float[n, 3] y) { y = Mul(x, x) }')
    >>> oracle = OnnxOracle(model, target=2, values=True)
    >>> values, gradients = oracle.value_and_gradient(np.array([[1., 2., 3.]], np.float32))
    >>> values.tolist(), gradients.tolist()
    ([9.0], [[0.0, 0.0, 6.0]])
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | onnx.ModelProto,
        *,
        target: Target | Literal["top"] = None,
        wrt: Sequence[str] | None = None,
        output: str | None = None,
        providers: Sequence[Provider] = ("CPUExecutionProvider",),
        session_options: Options = None,
        values: bool = False,
        straight_through: bool = False,
        resident: bool | None = None,
    ) -> None:
        if isinstance(wrt, str):
            raise ValueError(f"wrt is a sequence of input names: write ({wrt!r},)")
        checked = check_providers(providers)
        proto, folder = load_light(model)
        check_nodes(proto)
        self._signature = Signature.of(proto)
        if "target" in self._signature.inputs:
            raise ModelFileError(
                "The model has an input named 'target', the name by which targets by row are held: rename it"
            )
        names = self._signature.smoothed(None if wrt is None else tuple(wrt))
        explained = self._signature.explained(output)
        self._target = target if target == "top" else fixed_target(target, explained)
        if folder is not None and isinstance(session_options, ort.SessionOptions):
            raise ValueError(
                f"the model's weights stay in their data files, and the folder {os.fspath(folder)!r} goes "
                "into session_options; an object of yours is not changed: give a function that returns one"
            )
        content = proto.SerializeToString()
        blueprint = Blueprint(
            content,
            digest(content, [] if folder is None else data_files(proto, folder)),
            names,
            explained,
            values,
            checked,
            session_options,
            straight_through,
            folder=None if folder is None else os.fspath(folder),
        )
        self._sessions: Sessions | ReweightedSessions = Sessions(blueprint)
        self._device = lives_on(checked[0])
        by_row = self._signature.row_by_row
        if resident and by_row:
            raise ValueError(
                "resident=True draws batches, and the model's batch axis is fixed at 1: export it with a "
                "dynamic one (or rename that axis with onnx.tools.update_model_dims), or leave resident= out"
            )
        self._resident = self._device.startswith("cuda") and not by_row if resident is None else resident
        self._producer = f"{proto.producer_name} {proto.producer_version}".strip()
        self._opsets = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input to be smoothed, without the batch axis; None where the model leaves it open."""
        rows = {name: self._signature.inputs[name].row_shape for name in self._wrt}
        return {name: row for name, row in rows.items() if row is not None}

    @property
    def weights(self) -> Mapping[str, Array]:
        """The model's weights by name, read-only: its float initializers but for statistics and settings.

        ONNX does not say what was learnt. Left out are the mean and variance of BatchNormalization, settings
        of operators (the bounds of Clip, the scales of Resize), single numbers in arithmetic, and bfloat16;
        a table or a preprocessing constant of several numbers is taken for a weight, and can be held by name.
        """
        return self._sessions.weights

    def reweighted(self, weights: Mapping[str, Array]) -> OnnxOracle:
        """Return this oracle with other arrays in the place of some weights.

        They are fed to a second session, whose graph has these weights as inputs and counts on none of
        their values; it is built at its first call and shared by all oracles that replace the same ones. It
        is slower than the session in which they are constants, which goes on to serve this oracle.

        Raises
        ------
        ValueError
            There is no such weight, or a shape is not its own.
        """
        other = copy.copy(self)
        other._sessions = self._sessions.reweighted(replacements(weights, self._sessions.weights))
        return other

    @property
    def lives_on(self) -> str | None:
        """The device on which `Pathwise` has the points drawn; None where the host draws them."""
        return self._device if self._resident else None

    def check_setting(self, setting: Setting) -> None:
        """Raise ValueError where `Pathwise` is asked for what is not done inside a graph."""
        check_resident(setting, self._device)
        held = one_row({name: array for name, array in setting.held.items() if name != "target"})
        feed, _ = self._feed(setting.perturbation.layout.points(setting.perturbation.base[None]), held)
        one_row_beside(self._signature, self._sessions.blueprint.output, self._target, [setting])
        if self._is_open:
            self._check_range(feed, one_row(setting.held).get("target"))

    def tallies(self, settings: Sequence[Setting], start: int, stop: int, rows: int) -> list[Tally]:
        """Tally groups start .. stop - 1 of `Pathwise` where the model lives; moments alone come back."""
        blocks = [alike[0].oracle._blocks_around(alike, rows) for alike in by_points(settings)]
        return tallies(blocks, start, stop)

    def _blocks_around(self, settings: Sequence[Setting], rows: int) -> ResidentBlocks:
        return blocks_around(self._sessions, self._signature, self._target, settings, rows)

    def predict(self, points: Points | Bound, **held: Array | ort.OrtValue) -> Any:
        """Return the model's outputs (m, *output_shape) for a batch of points; a held ``target`` is ignored.

        They are an OrtValue, on the points' device, where the points are OrtValues.

        Raises
        ------
        ValueError, TypeError
            An input is missing, unknown, or of the wrong shape or dtype.
        MemoryError
            ONNX Runtime found no memory for the batch.
        """
        held.pop("target", None)
        feed, rows = self._feed(points, held)
        if rows == 0:
            one = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in feed.items()}
            return self._sessions.outputs(one)[:0]
        if self._signature.row_by_row and rows > 1:
            return np.concatenate([self._sessions.outputs(row) for row in _rows(feed, rows)])
        return self._sessions.outputs(feed)

    def value(self, points: Points | Bound, **held: Array | ort.OrtValue) -> Any:
        """Return the values (m,) of the target on a batch of points; no gradient, so any operator will do.

        They are an OrtValue, on the points' device, where the points are OrtValues.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `predict`.
        """
        target = held.pop("target", None)
        outputs = self.predict(points, **held)
        # What the model leaves open, or declares wrongly, is known here, and kernels of a GPU do not check.
        shape = shape_of(outputs)
        where = self._coordinates(shape[0], target, replace(self._sessions.blueprint.output, shape=shape))
        if isinstance(outputs, ort.OrtValue):
            return self._sessions.selected(outputs, where)
        return outputs[tuple(where.T)]

    def value_and_gradient(self, points: Points | Bound, **held: Array | ort.OrtValue) -> tuple[Any, Any]:
        """Return values (m,), or None without ``values=True``, and gradients, in the model's dtype.

        Parameters
        ----------
        points : array (m, *shape) or onnxruntime.OrtValue, or mapping of such
            The inputs ``wrt``; float64 arrays are cast to what the model takes. Gradients have the same form:
            of OrtValues they and the values are OrtValues, and neither leaves the points' device.
        **held : array or onnxruntime.OrtValue
            The model's other inputs by name, and ``target``, int64 (m,) or (m, n_axes), by row. An OrtValue
            is held beside points that are OrtValues too.

        Raises
        ------
        ValueError, TypeError
            An input is missing, unknown, or of the wrong shape, dtype or device; the target is out of range.
        MemoryError
            ONNX Runtime found no memory for the batch.
        mollikit_onnx.UnsupportedOperatorError
            The gradient of one of the model's operators is not known.
        """
        target = held.pop("target", None)
        feed, rows = self._feed(points, held)
        feed[COORDINATES] = self._coordinates(rows, target, self._sessions.blueprint.output)
        if rows == 0:
            results = [np.zeros_like(feed[name]) for name in self._wrt]
            results.append(np.zeros(0, self._sessions.blueprint.output.dtype))
        elif self._signature.row_by_row and rows > 1:
            feed[COORDINATES][:, 0] = 0  # each row is the first of its own batch
            parts = [self._sessions.gradients(row) for row in _rows(feed, rows)]
            results = [np.concatenate(column) for column in zip(*parts, strict=True)]
        else:
            results = self._sessions.gradients(feed)
        if self._is_open and not is_bound(feed) and any(np.isnan(array).any() for array in results):
            self._check_range(feed, target)
        values = results[-1] if self._sessions.blueprint.values else None
        if isinstance(points, Mapping):
            return values, dict(zip(self._wrt, results, strict=False))
        return values, results[0]

    def values_and_gradients(
        self, points: Points, targets: Any, **held: Array
    ) -> tuple[Array | None, list[Any]]:
        """Return values (K, m), or None, and K gradients for K targets, after one forward pass.

        A session of its own serves each number of targets: its graph holds the reverse pass as many times,
        and the forward pass once.

        Parameters
        ----------
        points, **held
            As `value_and_gradient` takes them, without a held ``target``.
        targets : sequence of int, or of tuples of int
            Elements of the output, in the place of the oracle's own; checked before the model is called.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`; or a target is held too.
        """
        read, blueprint = read_targets(targets, held), self._sessions.blueprint
        fixed = [fixed_target(index(target), blueprint.output) for target in read]
        feed, rows = self._feed(points, held)
        if is_bound(feed):
            raise TypeError(
                "several targets take arrays: give OrtValues to value_and_gradient, target by target"
            )
        whole = [coordinates(rows, target, None, blueprint.output) for target in fixed]
        if rows == 0:
            results = [
                [*(np.zeros_like(feed[name]) for name in self._wrt), np.zeros(0, blueprint.output.dtype)]
                for _ in read
            ]
        else:
            feed |= {copy_of(COORDINATES, k): where for k, where in enumerate(whole)}
            results = self._results(feed, rows, len(read))
            if self._is_open and any(np.isnan(array).any() for found in results for array in found):
                for target in read:
                    self._check_range(feed, np.asarray(target)[None])
        values = np.stack([found[-1] for found in results]) if blueprint.values else None
        if isinstance(points, Mapping):
            return values, [dict(zip(self._wrt, found, strict=False)) for found in results]
        return values, [found[0] for found in results]

    def _results(self, feed: Mapping[str, Array], rows: int, count: int) -> list[list[Array]]:
        if not self._signature.row_by_row or rows == 1:
            return self._sessions.gradients_of(count, feed)
        parts = []
        for row in _rows(feed, rows):
            for k in range(count):
                row[copy_of(COORDINATES, k)][:, 0] = 0  # each row is the first of its own batch
            parts.append(self._sessions.gradients_of(count, row))
        return [
            [np.concatenate(column) for column in zip(*found, strict=True)]
            for found in zip(*parts, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        blueprint = self._sessions.blueprint
        return {
            "oracle": "mollikit_onnx.OnnxOracle",
            "model_sha256": blueprint.digest,
            "producer": self._producer,
            "opsets": self._opsets,
            "wrt": list(self._wrt),
            "output": blueprint.output.name,
            "target": list(self._target) if isinstance(self._target, tuple) else self._target,
            "providers": [p if isinstance(p, str) else [p[0], dict(p[1])] for p in blueprint.providers],
            "row_by_row": self._signature.row_by_row,
            "straight_through": blueprint.straight_through,
            "resident": self._resident,
            "onnxruntime": ort.__version__,
        }

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}{list(shape)}" for name, shape in self.input_shapes.items())
        blueprint = self._sessions.blueprint
        target = ", ".join(map(str, self._target)) if isinstance(self._target, tuple) else self._target
        return (
            f"OnnxOracle(d {blueprint.output.name}[{target}] / d {inputs or ', '.join(self._wrt)}, "
            f"sha256={blueprint.digest[:12]}, providers={blueprint.providers}"
            + (", row by row)" if self._signature.row_by_row else ")")
        )

    @property
    def _wrt(self) -> tuple[str, ...]:
        return self._sessions.blueprint.wrt

    def _by_name(self, points: Any) -> Mapping[str, Any]:
        if isinstance(points, Mapping):
            return points
        if len(self._wrt) > 1:
            raise ValueError(f"points is a mapping of arrays by input name: the oracle has {list(self._wrt)}")
        return {self._wrt[0]: points}

    def _feed(self, points: Any, held: Mapping[str, Array]) -> tuple[dict[str, Array], int]:
        given = {**held, **self._by_name(points)}
        ports = self._signature.inputs
        if given.keys() != ports.keys():
            raise ValueError(self._mismatch(given, held))
        feed = {name: ports[name].batch(array) for name, array in given.items()}
        lengths = {name: shape_of(array)[0] for name, array in feed.items()}
        rows = lengths[self._wrt[0]]
        if any(length != rows for length in lengths.values()):
            raise ValueError(f"every input has one row for each point; their batch axes are {lengths}")
        if is_bound(feed):
            check_bound(feed, self._wrt, self._sessions.blueprint.providers)
            if rows == 0:
                raise ValueError("OrtValues of no rows: there is nothing to compute")
            if self._signature.row_by_row and rows > 1:
                raise ValueError(
                    f"OrtValues of {rows} rows, and the model takes one at a time: export it with a dynamic "
                    "batch axis, or give arrays"
                )
        return feed, rows

    @property
    def _is_open(self) -> bool:
        """Whether the explained output's sizes show in a run alone."""
        return None in (self._sessions.blueprint.output.row_shape or ())

    def _check_range(self, feed: Mapping[str, Any], target: Any) -> None:
        """Raise ValueError where a target, fixed or by row, is none of what a run gives."""
        one = {name: array[:1] for name, array in feed.items() if name in self._signature.inputs}
        output = replace(self._sessions.blueprint.output, shape=self._sessions.outputs(one).shape)
        self._coordinates(1 if target is None else len(target), target, output)

    def _coordinates(self, rows: int, target: Array | ort.OrtValue | None, output: Port) -> Array:
        by_row = target.numpy() if isinstance(target, ort.OrtValue) else target
        return coordinates(rows, self._target, by_row, output)

    def _mismatch(self, given: Mapping[str, Array], held: Mapping[str, Array]) -> str:
        ports = self._signature.inputs
        missing = [f"{name!r} ({port.dtype})" for name, port in ports.items() if name not in given]
        if missing:
            return (
                f"no array was given for the model's input {', '.join(missing)}: inputs in wrt "
                f"({list(self._wrt)}) come as points, all others as held arrays by name"
            )
        unknown = next(name for name in given if name not in ports)
        others = [name for name in ports if name not in self._wrt]
        if unknown in held:
            return f"the model has no input {unknown!r} to hold; it has {others} (and 'target')"
        return f"the model has no input {unknown!r}; points are of {list(self._wrt)}"


def _rows(feed: Mapping[str, Array], rows: int) -> list[dict[str, Array]]:
    return [{name: array[k : k + 1] for name, array in feed.items()} for k in range(rows)]
