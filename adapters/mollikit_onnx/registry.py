from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from mollikit_onnx.graphs.tensor import Tensor

# What a rule returns: a cotangent, or None, for each input of the node.
Sent: TypeAlias = "list[Tensor | None]"
# (node, *cotangents of its outputs) -> a cotangent, or None, for each of its inputs.
Rule = Callable[..., "Sequence[Tensor | None]"]
# node -> its outputs, made of other operators; None for one that cannot be made.
Expansion = Callable[..., "Sequence[Tensor | None]"]
AnyRule = TypeVar("AnyRule", bound=Callable[..., Any])

_RULES: dict[tuple[str, str], dict[int, Rule | None]] = {}
_EXPANSIONS: dict[tuple[str, str], Expansion] = {}


def rule(*op_types: str, since: int = 1, domain: str = "") -> Callable[[AnyRule], AnyRule]:
    """Register a function as the reverse-mode rule of operators.

    Parameters
    ----------
    *op_types : str
        Operators that the rule serves.
    since : int
        The first version of the operator (``since_version`` of its schema) that the rule is right for;
        it serves the later ones up to the next registered.
    domain : str
        Domain of the operators; "" is ai.onnx.

    Returns
    -------
    callable
        Decorator of a function ``(node, *cotangents) -> sequence of Tensor or None``: cotangents of the
        node's outputs come in, cotangents of its inputs go out, None where there is none.

    Examples
    --------
    >>> @rule("Cube", domain="com.example")
    ... def cube(node, g):
    ...     (x,) = node.inputs
    ...     return [3 * g * x * x]
    """

    def register(function: AnyRule) -> AnyRule:
        for op_type in op_types:
            _RULES.setdefault((domain, op_type), {})[since] = function
        return function

    return register


def expansion(*op_types: str, domain: str = "") -> Callable[[AnyRule], AnyRule]:
    """Register a function that writes operators out in terms of others, which have rules.

    Parameters
    ----------
    *op_types : str
        Operators that the function serves.
    domain : str
        Domain of the operators; "" is ai.onnx.

    Returns
    -------
    callable
        Decorator of a function ``node -> sequence of Tensor or None``: the node's outputs.

    Examples
    --------
    >>> @expansion("Cube", domain="com.example")
    ... def cube(node):
    ...     return [node.x * node.x * node.x]
    """

    def register(function: AnyRule) -> AnyRule:
        for op_type in op_types:
            _EXPANSIONS[domain, op_type] = function
        return function

    return register


def constant_by_law(*op_types: str, domain: str = "") -> None:
    """Declare operators whose derivative is zero or has no meaning: no cotangent flows through them."""
    for op_type in op_types:
        _RULES.setdefault((domain, op_type), {})[1] = None


def is_constant_by_law(domain: str, op_type: str) -> bool:
    """Whether the operator was declared to pass no cotangent."""
    return None in _RULES.get((domain, op_type), {}).values()


def find_rule(domain: str, op_type: str, version: int) -> Rule | None:
    """Return the rule for an operator as of a version of its domain, or None."""
    versions = _RULES.get((domain, op_type), {})
    fitting = [since for since in versions if since <= version]
    return versions[max(fitting)] if fitting else None


def registered() -> list[tuple[str, str]]:
    """Return (domain, operator) of every rule there is."""
    return [key for key, versions in _RULES.items() if any(rule is not None for rule in versions.values())]


def find_expansion(domain: str, op_type: str) -> Expansion | None:
    """Return the function that writes an operator out, or None."""
    return _EXPANSIONS.get((domain, op_type))


def expandable() -> list[tuple[str, str]]:
    """Return (domain, operator) of everything that is written out."""
    return list(_EXPANSIONS)
