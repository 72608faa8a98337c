from __future__ import annotations

from collections.abc import Iterable


class ModelError(ValueError):
    """A model, or a request about it, that the transform cannot serve; the message says what to do."""


class UnknownTensorError(ModelError, KeyError):
    """A name in ``wrt``, ``of`` or ``outputs`` that the model does not have."""

    def __init__(self, role: str, name: str, known: Iterable[str]) -> None:
        listed = sorted(known)
        shown = ", ".join(repr(k) for k in listed[:20]) + (", ..." if len(listed) > 20 else "")
        super().__init__(f"{role}: the model has no tensor {name!r}; it has {shown or 'none'}")

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0])


class UnsupportedOperatorError(ModelError):
    """An operator between ``wrt`` and ``of`` that has no rule, or none for the way it is used.

    Attributes
    ----------
    op_type, domain, node_name : str
        The operator and the node that stand in the way.
    """

    def __init__(self, op_type: str, domain: str, node_name: str, reason: str) -> None:
        self.op_type, self.domain, self.node_name = op_type, domain or "ai.onnx", node_name
        super().__init__(
            f"operator {op_type} (domain {self.domain}), node {node_name!r}: {reason}. "
            "Rewrite the model without it, register a rule with mollikit_onnx.rule, "
            "or use mollikit.Secant or mollikit.ScoreFunction, which need values alone"
        )


class OpsetError(ModelError):
    """A model whose operator set cannot be brought to one that the rules and onnxruntime know."""
