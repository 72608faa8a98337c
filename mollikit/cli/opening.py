from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mollikit.cli import options
from mollikit.cli.command import UsageError
from mollikit.cli.description import Description
from mollikit.cli.models import open_model
from mollikit.cli.predictions import Predictions
from mollikit.cli.subjects import Subject, read_subjects
from mollikit.oracles import Anchored, GradientOracle, ModelFile


@dataclass(frozen=True, eq=False)
class Opened:
    """A model and its inputs, as a command line names them: opened, read and checked.

    Attributes
    ----------
    description : Description
        What the TOML beside the model says.
    target : int, tuple of int, or "top"
    model : ModelFile
    subjects : list of Subject
    """

    description: Description
    target: int | tuple[int, ...] | str
    model: ModelFile
    subjects: list[Subject]

    @classmethod
    def of(cls, asked: argparse.Namespace, inputs: Sequence[Path]) -> Opened:
        """Open what was asked for.

        Raises
        ------
        ValueError, OSError, ImportError
            Naming the file that is missing, cannot be read or does not fit the model.
        """
        description = Description.beside(asked.model)
        target = description.target(asked.target)
        for path in inputs:
            if path.is_dir():
                raise ValueError(f"the input {str(path)!r} is a folder: name the files in it")
            if not path.is_file():
                raise ValueError(f"there is no input file {str(path)!r}: check the path")
        model = opened(asked, target)
        subjects = read_subjects(inputs, model.input_shapes, options.preprocessing(asked), description)
        if any(subject.photo is not None for subject in subjects) and find_spec("matplotlib") is None:
            raise ImportError("pictures are drawn with matplotlib: pip install 'mollikit[viz]'")
        return cls(description, target, model, subjects)

    def predicted(self, subject: Subject) -> Predictions:
        """Return what the model says of an input.

        Raises
        ------
        ValueError
            If the model cannot take the input, its output is NaN, or the target is out of its range.
        """
        try:
            output = self.model.predict(subject.batch, **subject.held_batch)[0]
        except Exception as error:  # the model's runtime has errors of its own
            shape = (
                {k: v.shape for k, v in subject.points.items()}
                if isinstance(subject.points, dict)
                else (subject.points.shape)
            )
            raise ValueError(
                f"{str(subject.path)!r}: the model cannot take an input of shape {shape}: {error}"
            ) from error
        if np.isnan(output).any():
            raise ValueError(f"{str(subject.path)!r}: the model's output is NaN: check the input's range")
        return Predictions.of(output, self.target, self.description)


def opened(asked: argparse.Namespace, target: int | tuple[int, ...] | str) -> ModelFile:
    """Open the model that was asked for.

    Raises
    ------
    ValueError, OSError, ImportError
        Of the model; as `UsageError`, where it opens without ``--target`` and ``--provider``.
    """
    try:
        return open_model(asked.model, target, asked.provider)
    except (ValueError, RuntimeError) as error:
        if target == "top" and not asked.provider:
            raise
        open_model(asked.model, "top", None)
        raise UsageError(str(error)) from error


def anchored(model: ModelFile, subject: Subject) -> GradientOracle:
    """Return the model with its choices made on the clean input, such as the largest output."""
    return model.anchored(subject.points, **subject.held) if isinstance(model, Anchored) else model
