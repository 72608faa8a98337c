from __future__ import annotations

from collections.abc import Callable, Mapping

from mollikit.budgets import Evaluations
from mollikit.estimators import Estimator, Pathwise
from mollikit.estimators.perturbation import Perturbation
from mollikit.estimators.piloted import Piloted
from mollikit.kernels import Law
from mollikit.samplers import (
    Antithetic,
    Independent,
    LatinHypercube,
    LocalBlocks,
    Orthogonal,
    Recentred,
    Sampler,
    Sobol,
    WhitenedBlocks,
)

# What makes an estimate: an estimator, or one that learns its scheme from a pilot.
Spending = Estimator | Piloted
# A way of spending evaluations: a sampler (in Pathwise), an estimator, or how one follows from their number.
Scheme = Sampler | Spending | Callable[[int], Sampler | Spending]
# An error bar from fewer groups than this is rough: a scheme whose groups grow with the budget keeps them.
FEWEST_GROUPS = 8


def default_schemes(
    dimension: int, shape: tuple[int, ...], evaluations: int
) -> tuple[dict[str, Scheme], dict[str, str]]:
    """Return every scheme that suits an input, and of the others why they do not.

    Parameters
    ----------
    dimension, shape : int, tuple of int
        Of the moving coordinates.
    evaluations : int
        The smallest number at which they are to be compared; a group is at most an eighth of it.

    Examples
    --------
    >>> from mollikit.comparison import default_schemes
    >>> schemes, left_out = default_schemes(dimension=64, shape=(64,), evaluations=64)
    >>> sorted(schemes)
    ['Antithetic', 'Independent', 'LatinHypercube', 'Orthogonal', 'Recentred', 'Sobol']
    """
    candidates: dict[str, Scheme] = {
        "Independent": Independent(),
        "Antithetic": Antithetic(),
        "Recentred": Recentred(min(8, max(2, evaluations // FEWEST_GROUPS))),
        "LatinHypercube": lambda n: LatinHypercube(max(2, n // FEWEST_GROUPS)),
        "Sobol": lambda n: Sobol(1 << max(1, (n // FEWEST_GROUPS).bit_length() - 1)),
        "Orthogonal": lambda n: Orthogonal(max(1, min(dimension, n // (2 * FEWEST_GROUPS)))),
        "LocalBlocks": lambda n: LocalBlocks(max(2, n // FEWEST_GROUPS // 2 * 2)),
        "WhitenedBlocks": lambda n: WhitenedBlocks(max(2, n // FEWEST_GROUPS)),
    }
    left_out = {}
    for name in list(candidates):
        try:
            sampler = at(candidates[name], evaluations)
            assert isinstance(sampler, Sampler)
            sampler.check(dimension)
            sampler.check_grid(shape)
        except ValueError as error:
            left_out[name] = str(error)
            del candidates[name]
    return candidates, left_out


def at(scheme: Scheme, evaluations: int) -> Sampler | Spending:
    """Return what a scheme is at a number of evaluations."""
    return scheme if isinstance(scheme, Sampler | Estimator | Piloted) else scheme(evaluations)


def estimators(
    schemes: Mapping[str, Scheme],
    evaluations: tuple[int, ...],
    kernel: Law,
    block: int | None,
    perturbation: Perturbation,
) -> dict[tuple[str, int], Spending]:
    """Return the estimator of each scheme at each number of evaluations.

    Raises
    ------
    TypeError
        If a scheme is neither a sampler nor an estimator, nor makes one.
    ValueError
        If a scheme is biased, does not suit the input, or has too few groups; or if an estimator smooths
        by another kernel: another estimand.
    """
    made: dict[tuple[str, int], Spending] = {}
    for name, scheme in schemes.items():
        for n in evaluations:
            what = at(scheme, n) if callable(scheme) or isinstance(scheme, Sampler | Spending) else scheme
            if isinstance(what, Sampler):
                if what.biased:
                    raise ValueError(
                        f"scheme {name!r} is biased ({what!r}): its spread does not show its error, so it "
                        "cannot be compared with unbiased ones by their spread"
                    )
                what = Pathwise(inputs=kernel, sampler=what, block=block)
            if not isinstance(what, Spending):
                raise TypeError(
                    f"scheme {name!r} is {what!r}: give a sampler, an estimator, or a function from the "
                    "number of evaluations to one"
                )
            if what.inputs != kernel:
                raise ValueError(
                    f"scheme {name!r} smooths by {what.inputs!r} and the others by {kernel!r}: they have "
                    "other estimands, and no error in common"
                )
            _check(name, what, n, perturbation)
            made[name, n] = what
    return made


def _check(name: str, estimator: Spending, evaluations: int, perturbation: Perturbation) -> None:
    if isinstance(estimator, Piloted):
        if evaluations < 2 * estimator.pilot:
            raise ValueError(
                f"scheme {name!r}: {evaluations} evaluations leave too little after a pilot of "
                f"{estimator.pilot}: compare at {2 * estimator.pilot} or more, or give a smaller pilot="
            )
        return
    sampler = estimator._groups()
    try:
        sampler.check(perturbation.dimension)
        sampler.check_grid(perturbation.shape)
        size = sampler.group_size(perturbation.dimension)
        Evaluations(evaluations).check(size, (), sampler.fewest_groups)
        if estimator.block is not None and estimator._whole_groups and estimator.block < size:
            raise ValueError(f"block={estimator.block} holds less than one group of {size} points")
    except ValueError as error:
        raise ValueError(f"scheme {name!r}: {error}") from error
