from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray

from mollikit._version import __version__
from mollikit.budgets import Budget
from mollikit.estimate import Estimate
from mollikit.estimators.attributions import Attributing
from mollikit.oracles import named

if TYPE_CHECKING:
    from mollikit.estimators.base import Estimator, Setting

# What decides the points, the model and the bits: the same in two runs that may be joined.
_IDENTITY = (
    "estimator",
    "kernels",
    "sampler",
    "seed",
    "item",
    "oracle",
    "inputs",
    "widths",
    "held",
    "views",
    "second_moments",
    "drawn_on",
    "weights",
    "block",
)

_OF_WEIGHTS = "gradient of the function smoothed in its weights"


def provenance(
    estimator: Estimator, setting: Setting, budget: Budget, weights: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All that is needed to repeat an estimate, fit for JSON; of the arrays, their SHA-256.

    What is told of the weights may be given where it is known: they are read whole for it.
    """
    perturbation = setting.perturbation
    kernels, where = estimator.inputs, setting.drawn_on
    laws = kernels.values() if isinstance(kernels, Mapping) else [kernels] if kernels is not None else []
    estimand = "; ".join(dict.fromkeys(law.estimand for law in laws))
    if setting.weights is not None:
        estimand = f"{estimand}, its weights smoothed too" if laws else _OF_WEIGHTS
    return {
        "estimator": type(estimator).__name__,
        "kernels": {name: repr(k) for name, k in kernels.items()}
        if isinstance(kernels, dict)
        else None
        if kernels is None
        else repr(kernels),
        "estimand": estimand + _instead(setting.oracle),
        "effective_share": perturbation.effective_share,
        "sampler": repr(setting.sampler),
        "biased": setting.sampler.biased,
        "seed": setting.key.seed,
        "item": setting.key.item,
        "budget": str(budget),
        "oracle": named(setting.oracle),
        "inputs": {
            leaf.name or "": {"shape": list(leaf.shape), "dtype": leaf.dtype.name}
            for leaf in perturbation.layout.leaves
        }
        | {"sha256": _sha256(perturbation.base)},
        "widths": _sha256(perturbation.widths),
        "held": {name: _sha256(values) for name, values in setting.held.items()},
        "target": setting.held["target"].tolist() if "target" in setting.held else None,
        "views": {name: repr(view) for name, view in setting.views.items()},
        "second_moments": setting.second_moments,
        "drawn_on": None if where is None else f"{where}: the law of the host's points, other bits",
        "weights": weights or _weights(setting),
        "group_size": setting.group_size,
        "versions": {"mollikit": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
    }


def _weights(setting: Setting) -> dict[str, Any] | None:
    if setting.weights is None:
        return None
    return {
        "laws": setting.weights.told,
        "sampler": repr(setting.weights.sampler),
        "inputs_per_model": setting.inputs_per_model,
        "tensors": len(setting.weights.laws),
        "coordinates": setting.weights.size,
        "sha256": setting.weights.digest(setting.oracle.weights),
    }


def refuse_other_run(estimate: Estimate, about: dict[str, Any]) -> None:
    """Raise ValueError, naming what differs, where an estimate is not of the same thing.

    The block is compared where ``about`` names one, which is where one is asked for.
    """
    different = [name for name in _IDENTITY if name in about and estimate.provenance.get(name) != about[name]]
    if different:
        told = "; ".join(
            f"{name}: {estimate.provenance.get(name)} then, {about[name]} now" for name in different
        )
        raise ValueError(
            f"resume= holds an estimate of something else ({told}); give it the same rng and arguments"
        )


def _instead(oracle: object) -> str:
    return f", with in the gradient's place: {oracle.attribution}" if isinstance(oracle, Attributing) else ""


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
