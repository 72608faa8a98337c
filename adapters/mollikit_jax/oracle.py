from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax import numpy as jnp

from mollikit.batches import Batch
from mollikit.oracles import Array, Points
from mollikit.outputs import Output
from mollikit.targeted import Targeted
from mollikit.targets import (
    Target,
    check_own_rows,
    check_target,
    coordinates,
    coordinates_of,
    name_of,
    read_targets,
)
from mollikit_jax.parameters import Parameters, is_tree
from mollikit_jax.programs import Programs


class JaxOracle(Targeted):
    """A JAX function as an oracle: values and gradients of one scalar a row.

    The function is traced and compiled once for each shape of inputs, the batch included; neither the target
    nor the parameters are part of a trace. Nothing of JAX's configuration is changed.

    Parameters
    ----------
    function : callable
        Called as ``function(params, points, **held)``, or without ``params`` where none are given;
        points given as a mapping come by keyword. A callable that is a pytree of arrays itself, as modules
        of Equinox and Flax's nnx are, brings its parameters along.
    params : pytree, optional
        Parameters, such as what ``module.init`` of Flax's linen returns, with ``module.apply``.
    target : int, tuple of int, callable, "top" or None
        What to explain of an output (m, ...): a class of an output (m, n_classes); an index per axis
        behind the batch; a function from the output to one scalar a row, shape (m,); None where there is
        one already. "top" is the largest element on the clean input, fixed by `anchored`. An array ``target``
        held with the rows, integers (m,) or (m, n_axes), takes precedence over an index.
    output : int, str or callable, optional
        Which of several outputs: its place, its key or attribute, or a function that takes it out.
    rowwise : bool
        The function takes one example without the batch axis, and is mapped over the batch by ``jax.vmap``.
    dtype : dtype, optional
        Of points and held floats; by default that of the first floats among the parameters, or else the
        points' own as JAX takes them (float64 is float32 there, unless ``jax_enable_x64`` is set). Float64
        that is asked for is computed as such, whatever the setting is.
    jit : bool
        Compile by ``jax.jit``; otherwise operations run one by one.

    Raises
    ------
    TypeError
        The function is not callable, the target of no known kind, or the dtype not one of floats.
    ValueError
        An index is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from jax import numpy as jnp
    >>> def logits(params, x):
    ...     return jnp.tanh(x @ params["kernel"])
    >>> oracle = JaxOracle(logits, {"kernel": np.ones((3, 2), np.float32)}, target=1)
    >>> values, gradients = oracle.value_and_gradient(np.zeros((4, 3), np.float32))
    >>> values.shape, gradients[0].tolist()
    ((4,), [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        params: Any = None,
        *,
        target: Target | Literal["top"] = None,
        output: Output = None,
        rowwise: bool = False,
        dtype: Any = None,
        jit: bool = True,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function is called on points, and got a {type(function).__name__}")
        check_target(target)
        self._name = name_of(function)
        if params is None and is_tree(function):
            params, function = function, _call
        # Under the configuration as it is: float64 parameters of NumPy are float32 to JAX, as everywhere.
        self._parameters = Parameters.of(params)
        learnt = next(iter(self._parameters.learnt.values()), None)
        self._dtype = np.dtype(dtype) if dtype is not None else None if learnt is None else learnt.dtype
        if self._dtype is not None and not jnp.issubdtype(self._dtype, jnp.floating):
            raise TypeError(f"dtype={self._dtype.name}: points are floats")

        self._target, self._output, self._rowwise, self._jit = target, output, rowwise, jit
        self._programs = Programs(
            _Parameterless(function) if params is None else function,
            self._parameters,
            output,
            target if callable(target) else None,
            rowwise,
            jit,
        )

    @property
    def weights(self) -> Mapping[str, Array]:
        """The parameters of floats, by their path through the tree.

        Running statistics (the collection ``batch_stats`` of Flax's linen, ``BatchStat`` of nnx) are not
        among them.
        """
        return {name: _array(values) for name, values in self._parameters.learnt.items()}

    def reweighted(self, weights: Mapping[str, Array]) -> JaxOracle:
        """Return this oracle with these arrays in the place of its own; compiled programs are shared.

        Raises
        ------
        ValueError
            A name is not among `weights`, or a shape is not that of the parameter.
        """
        reweighted = copy.copy(self)
        with self._precision():
            reweighted._parameters = self._parameters.replaced(weights)
        return reweighted

    def predict(self, points: Points, **held: Array) -> Array:
        """Return the outputs (m, *output_shape) for a batch of points; a held ``target`` is ignored.

        Raises
        ------
        ValueError, TypeError
            An input does not fit, or the output is not one array of m rows: choose by ``output=``.
        MemoryError
            JAX found no memory for the batch.
        """
        held.pop("target", None)
        batch = Batch.read(points, held)
        asked = batch if batch.rows else batch.one_of_zeros()
        with self._computing(asked.rows):
            (output,) = self._programs.outputs(*self._arguments(asked))
            array = _array(output)
        return array[: batch.rows]

    def value(self, points: Points, **held: Array) -> Array:
        """Return the values (m,) of the target on a batch of points, without gradients.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`.
        """
        return self._answers(self._programs.values, points, held)[1]

    def value_and_gradient(self, points: Points, **held: Array) -> tuple[Array, Any]:
        """Return values (m,) and gradients, in the model's dtype (float32 for bfloat16).

        Parameters
        ----------
        points : array (m, *shape) or mapping of such arrays
            Floats, cast to what the model takes. Gradients have the same form.
        **held : array
            The function's other arguments by name, and ``target``, integers (m,) or (m, n_axes), by row.

        Raises
        ------
        ValueError, TypeError
            An input or the target does not fit; the output is not differentiable or does not depend on
            an input.
        MemoryError
            JAX found no memory for the batch.
        """
        batch, values, gradients = self._answers(self._programs.gradients, points, held)
        return values, batch.in_their_form(gradients)

    def values_and_gradients(self, points: Points, targets: Any, **held: Array) -> tuple[Array, list[Any]]:
        """Return values (K, m) and K gradients for K targets: one forward pass, K backward ones at once.

        The function is traced and compiled for each number of targets.

        Parameters
        ----------
        points, **held
            As `value_and_gradient` takes them, without a held ``target``.
        targets : sequence of int, or of tuples of int
            Elements of the output, in the place of the oracle's own.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As in `value_and_gradient`; or ``target`` is a function, or held too.
        """
        read = read_targets(targets, held)
        if callable(self._target):
            raise ValueError("target is a function, so other targets have no meaning: drop it")
        batch = Batch.read(points, held)
        asked = batch if batch.rows else batch.one_of_zeros()
        with self._computing(asked.rows):
            arguments = self._arguments(asked)
            where = coordinates_of(read, asked.rows, self._programs.row(*arguments))
            values, found = self._programs.gradients_of(*arguments, where)
            gradients = {name: _array(each)[:, : batch.rows] for name, each in found.items()}
        answers = [
            batch.in_their_form({name: g[k] for name, g in gradients.items()}) for k in range(len(read))
        ]
        return _array(values)[:, : batch.rows], answers

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to repeat a result, ready for JSON."""
        target = name_of(self._target) if callable(self._target) else self._target
        return {
            "oracle": "mollikit_jax.JaxOracle",
            "model": self._name,
            "weights_sha256": self._parameters.digest(),
            "output": name_of(self._output) if callable(self._output) else self._output,
            "target": list(target) if isinstance(target, tuple) else target,
            "rowwise": self._rowwise,
            "dtype": None if self._dtype is None else self._dtype.name,
            "jit": self._jit,
            "device": str(jax.devices()[0]),
            "jax": jax.__version__,
        }

    def __repr__(self) -> str:
        target = name_of(self._target) if callable(self._target) else self._target
        return f"JaxOracle({self._name}, target={target!r})"

    def _answers(
        self, kind: Callable[..., Any], points: Any, held: dict[str, Array]
    ) -> tuple[Batch, Array, dict[str, Array]]:
        by_row = held.pop("target", None)
        if callable(self._target) and by_row is not None:
            raise ValueError("target is a function, so a target held with the rows has no meaning: drop one")
        batch = Batch.read(points, held)
        asked = batch if batch.rows else batch.one_of_zeros()
        with self._computing(asked.rows):
            weights, given, fixed = self._arguments(asked)
            row = self._programs.row(weights, given, fixed)
            where = np.zeros((asked.rows, 0), np.int64)
            if not callable(self._target):
                where = coordinates(self._target, by_row, batch.rows, row)
            if batch.rows == 0:
                where = np.zeros((1, where.shape[1]), np.int64)
            found = kind(weights, given, fixed, where)
            values, alone = _array(found[0]), _array(found[1])
            gradients = (
                {name: _array(g)[: batch.rows] for name, g in found[2].items()} if len(found) > 2 else {}
            )
        if callable(self._target):
            epsilon = jnp.finfo(found[0].dtype).eps  # type: ignore[no-untyped-call]
            check_own_rows(values, alone, batch.rows, float(epsilon))
        return batch, values[: batch.rows], gradients

    def _arguments(self, batch: Batch) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        points, held = (
            {name: self._cast(array) for name, array in part.items()} for part in (batch.points, batch.held)
        )
        return self._parameters.arrays, points, held

    def _cast(self, array: Array) -> Any:
        floats = self._dtype is not None and jnp.issubdtype(array.dtype, jnp.floating)
        return jnp.asarray(array.astype(self._dtype, copy=False) if floats else array)

    def _precision(self) -> AbstractContextManager[None]:
        # JAX's switch is of the whole process or of a thread's block; only the latter leaves others alone.
        return jax.enable_x64(True) if self._dtype == np.float64 else nullcontext()

    @contextmanager
    def _computing(self, rows: int) -> Iterator[None]:
        try:
            with self._precision():
                yield
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise MemoryError(f"JAX found no memory for a batch of {rows}: {error}") from error
            raise


@dataclass(frozen=True)
class _Parameterless:
    """A function that takes no parameters, called as one that does."""

    function: Callable[..., Any]

    def __call__(self, _params: None, *points: Any, **inputs: Any) -> Any:
        return self.function(*points, **inputs)


def _call(module: Callable[..., Any], *points: Any, **inputs: Any) -> Any:
    return module(*points, **inputs)


def _array(array: Any) -> Array:
    found = np.asarray(array)
    # What NumPy lacks, such as bfloat16, goes back as float32.
    return found.astype(np.float32) if found.dtype.kind == "V" else found
