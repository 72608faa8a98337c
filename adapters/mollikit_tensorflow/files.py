from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from mollikit.outputs import Output
from mollikit.targets import Target
from mollikit_tensorflow.oracle import TensorFlowOracle
from mollikit_tensorflow.sources import SignatureSource


class ModelFileError(ValueError):
    """A .keras file or SavedModel folder that cannot be used; the message names the culprit and the mend."""


def open_keras(
    path: str | os.PathLike[str],
    *,
    target: Target | Literal["top"] = None,
    output: Output = None,
    providers: Sequence[str] = (),
) -> TensorFlowOracle:
    """Open a file written by ``model.save("model.keras")`` as an oracle.

    Layers of one's own must be registered by ``keras.saving.register_keras_serializable`` before. Code that
    is stored in the file (Lambda layers) is not run.

    Parameters
    ----------
    path : path
    target, output
        As for `TensorFlowOracle`.
    providers : sequence of str
        Execution providers are ONNX Runtime's: none can be chosen here.

    Raises
    ------
    ModelFileError
        The file cannot be read, or is no Keras model.
    ValueError, TypeError
        The target cannot be, or providers are named.

    Examples
    --------
    >>> import keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.keras")
    ...     oracle = open_keras(f"{folder}/model.keras", target=1)
    >>> oracle.value_and_gradient(np.ones((4, 3), np.float32))[1].shape
    (4, 3)
    """
    _refuse(providers)
    file = Path(path)
    if not file.is_file():
        raise ModelFileError(
            f"There is no file {str(file)!r} (looked in {str(file.parent.absolute())!r}): check the path"
        )
    if not zipfile.is_zipfile(file):
        raise ModelFileError(
            f"{str(file)!r} ({file.stat().st_size} bytes) is not a .keras file: write it by "
            'model.save("model.keras") of Keras 3'
        )
    try:
        model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # an archive of another kind can make the reader raise nearly anything
        raise ModelFileError(
            f"{str(file)!r} cannot be loaded by Keras {keras.__version__}: {error}\n(layers of your own must "
            "be registered by keras.saving.register_keras_serializable; or load the model yourself, and give "
            "it to TensorFlowOracle)"
        ) from error
    return TensorFlowOracle(model, target=target, output=output)


def open_saved_model(
    path: str | os.PathLike[str],
    *,
    target: Target | Literal["top"] = None,
    output: Output = None,
    signature: str | None = None,
    providers: Sequence[str] = (),
) -> TensorFlowOracle:
    """Open a SavedModel folder as an oracle: gradients flow through its signature.

    A signature whose batch axis is fixed at 1 is run row by row. Open folders that you trust only.

    Parameters
    ----------
    path : path
        The folder that holds ``saved_model.pb``.
    target, output
        As for `TensorFlowOracle`; a signature's outputs have names.
    signature : str, optional
        Which one, by default ``serving_default``, or the only one.
    providers : sequence of str
        Execution providers are ONNX Runtime's: none can be chosen here.

    Raises
    ------
    ModelFileError
        The folder is no SavedModel, or has no such signature.
    ValueError, TypeError
        The target cannot be, or providers are named.

    Examples
    --------
    >>> import keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.export(folder, verbose=False)
    ...     oracle = open_saved_model(folder, target=1)
    >>> oracle.value_and_gradient(np.ones((4, 3), np.float32))[1].shape
    (4, 3)
    """
    _refuse(providers)
    return TensorFlowOracle(_Signature(Path(path), signature), target=target, output=output)


class _Signature(SignatureSource):
    """A signature of a folder, with the loaded model, which its variables live in."""

    def __init__(self, folder: Path, signature: str | None) -> None:
        if not tf.saved_model.contains_saved_model(str(folder)):
            raise ModelFileError(
                f"{str(folder)!r} is not a SavedModel: it is a folder with saved_model.pb in it, as "
                "model.export(folder) or tf.saved_model.save(model, folder) writes it"
            )
        self._opened = folder.absolute(), signature
        self._loaded = _loaded(folder)
        super().__init__(_chosen(self._loaded.signatures, folder, signature), folder.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Signature, self._opened


def _loaded(folder: Path) -> Any:
    try:
        return tf.saved_model.load(str(folder))
    except Exception as error:  # a damaged folder can make the reader raise nearly anything
        keras_2 = "_UserObject" in str(error)
        if keras_2 and find_spec("tf_keras") is not None and "tf_keras" not in sys.modules:
            import_module("tf_keras")  # which tells TensorFlow of the classes of Keras 2
            return _loaded(folder)
        what = "was saved by Keras 2, whose classes TensorFlow finds in tf_keras: pip install tf_keras"
        raise ModelFileError(
            f"{str(folder)!r} {what if keras_2 else 'is damaged, or of another TensorFlow'}: {error}"
        ) from error


def _chosen(signatures: Any, folder: Path, asked: str | None) -> Any:
    names = sorted(signatures)
    if not names:
        raise ModelFileError(
            f"{str(folder)!r} has no signatures: give tf.saved_model.save(model, folder) signatures=..."
        )
    name = asked or ("serving_default" if "serving_default" in names else names[0])
    if name not in names or (asked is None and name != "serving_default" and len(names) > 1):
        raise ModelFileError(f"{str(folder)!r} has the signatures {names}: choose one by signature=")
    return signatures[name]


def _refuse(providers: Sequence[str]) -> None:
    if providers:
        raise ValueError(
            f"providers={list(providers)} are ONNX Runtime's: a TensorFlow model runs on TensorFlow's devices"
        )
