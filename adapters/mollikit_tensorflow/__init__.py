"""TensorFlow models as oracles: Keras 3 models, SavedModel signatures and functions."""

from mollikit_tensorflow.files import open_keras, open_saved_model
from mollikit_tensorflow.oracle import TensorFlowOracle

__all__ = ["TensorFlowOracle", "open_keras", "open_saved_model"]
