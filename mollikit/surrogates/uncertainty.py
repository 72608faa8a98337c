from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mollikit.surrogates.products import Array, Products


@dataclass(frozen=True)
class Uncertainty:
    """How well a risk is known: the standard error of the stated less the real squared error."""

    standard_error: float
    degrees_of_freedom: float

    @classmethod
    def of(cls, products: Products, weights: Array) -> Uncertainty:
        r"""Estimate it for the map S + w (G - S), whose weights (bands,) may be fitted to the same folds.

        With r = G - S, f = (1 - w) r what is taken away from G, C the covariance of G and J the Jacobian of
        the map, Stein's estimate SURE of the squared error L of this very map has

            E (SURE - L)^2 = E[4 f'Cf + 4 tr(CJCJ) - 2 tr C^2].

        A weight w = 1 - c V / |r|^2 gives J = w + g r r', g = 2 (1 - w) / |r|^2, and so, in a single band,

            2 (1 - 2w)^2 tr C^2  +  4 (f'Cf - (1 - w)^2 tr C^2)  +  8 w g r'C^2 r + 4 g^2 (r'Cr)^2.

        The second is the error along the bias, 4 (1 - w)^2 b'Cb, and not negative. V is estimated from
        the folds, which takes K / (K - 1) times the first. Where w is 0 this is the error of an audit,
        2 tr C^2 K / (K - 1) + 4 b'Cb, exactly and for folds of any law. Traces of squares are estimated
        without bias, and without assuming normal folds, which takes 4 of them: fewer tell nothing. Degrees of
        freedom are Welch's and Satterthwaite's, of the normal law with equal noise in each direction.

        Source: Bellec and Zhang 2021, "Second-order Stein: SURE for SURE and other applications in
        high-dimensional inference", the second-order formula; Himeno and Yamada 2014, "Estimations for some
        functions of covariance matrix in high dimension under non-normality and its applications", for the
        traces.
        """
        count, n = products.count, products.count - 1
        if count < 4:
            return cls(float("inf"), 1.0)
        gram, along, w = products.gram, products.along, weights
        pairs = count * n
        first = 2 * count / n * _trace_of_square(gram @ (1 - 2 * w)) / count**2
        towards = along @ (1 - w)
        kept = _trace_of_square(gram @ np.square(1 - w)) / count**2
        second = 4 * max(0.0, float(np.square(towards).sum()) / pairs - kept)
        moves = (w > 0) & (products.power > 0)
        g = np.where(moves, 2 * (1 - w) / np.where(moves, products.power, 1.0), 0.0)
        weighted = gram @ w / pairs
        across = along.T @ along / pairs
        # E r'S^2 r = (1 + 1 / n) r'C^2 r + r'Cr tr C / n, for S with n degrees of freedom.
        twice = np.einsum("jb,jk,kb->b", along, weighted, along) / pairs
        twice = np.maximum(0, (twice - np.diag(across) * np.trace(weighted) / n) / (1 + 1 / n))
        third = float(8 * g @ twice + 4 * g @ np.square(across) @ g)
        variance = first + second + third
        if variance == 0:
            return cls(0.0, float(n))
        spread = second**2 / n + (first + third) ** 2 / _freedom_of_square(gram.sum(axis=2))
        return cls(float(np.sqrt(variance)), float(max(1.0, variance**2 / spread)))


def _trace_of_square(gram: Array) -> float:
    """Tr (AC)^2 of one fold from products (K, K) of deviations in the form A, whatever the law.

    It is the mean of <d, Ad'>^2 / 4 over differences d and d' of four different folds.
    """
    count, n = len(gram), len(gram) - 1
    of_square, squared_trace = np.square(gram).sum() / n**2, (np.trace(gram) / n) ** 2
    fourth = np.square(np.diag(gram)).sum() / n
    whole = n * (count - 2) * of_square + squared_trace - count * fourth
    return max(0.0, float(whole * n / (count * (count - 2) * (count - 3))))


def _freedom_of_square(gram: Array) -> float:
    """Degrees of freedom of an estimated tr C^2: its relative variance is 8 / (n p) + 4 / n^2."""
    n = len(gram) - 1
    square = _trace_of_square(gram)
    directions = (np.trace(gram) / n) ** 2 / square if square > 0 else np.inf
    return float(1 / (4 / (n * directions) + 2 / n**2))
