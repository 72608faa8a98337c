"""TensorFlow models as oracles: Keras 3 models, SavedModel signatures and functions."""

try:
    import tensorflow as tf  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mollikit_tensorflow needs the module {error.name}: pip install 'mollikit[tensorflow]'",
        name=error.name,
    ) from error

from mollikit_tensorflow.files import open_keras, open_saved_model
from mollikit_tensorflow.oracle import TensorFlowOracle

__all__ = ["TensorFlowOracle", "open_keras", "open_saved_model"]
