"""JAX functions as oracles, with or without parameters: plain, Flax or Equinox."""

try:
    import jax  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mollikit_jax needs the module {error.name}: pip install 'mollikit[jax]'", name=error.name
    ) from error

from mollikit_jax.oracle import JaxOracle

__all__ = ["JaxOracle"]
