"""JAX functions as oracles, with or without parameters: plain, Flax or Equinox."""

from mollikit_jax.oracle import JaxOracle

__all__ = ["JaxOracle"]
