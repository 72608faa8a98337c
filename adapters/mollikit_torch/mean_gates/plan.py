from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_leaves

from mollikit_torch.mean_gates.stand_ins import StandIn, find_stand_in
from mollikit_torch.mean_gates.tracing import NoMeanGateError, aten, is_pointwise

# fmt: off
# Linear in the first argument, although autograd keeps that for the backward pass.
_LINEAR = {
    aten.convolution, aten.native_batch_norm, aten._native_batch_norm_legit_no_training,
    aten.cudnn_batch_norm, aten.miopen_batch_norm, aten.avg_pool2d, aten.avg_pool3d,
    aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d, aten.reflection_pad1d, aten.reflection_pad2d,
    aten.reflection_pad3d, aten.replication_pad1d, aten.replication_pad2d, aten.replication_pad3d,
}
# Functions of the shape alone.
_SHAPED = {
    aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.new_zeros, aten.new_ones,
    aten.new_full, aten.new_empty, aten.new_empty_strided,
}
# Defined on all of R, and bounded there by powers: they may be evaluated where the model itself does not.
_EVERYWHERE = {
    aten._to_copy, aten.abs, aten.add, aten.alias, aten.atan, aten.celu, aten.clamp, aten.clamp_max,
    aten.clamp_min, aten.clone, aten.cos, aten.elu, aten.eq, aten.erf, aten.ge, aten.gelu, aten.gt,
    aten.hardsigmoid, aten.hardtanh, aten.le, aten.leaky_relu, aten.lt, aten.maximum, aten.minimum,
    aten.mish, aten.mul, aten.ne, aten.neg, aten.relu, aten.rsub, aten.selu, aten.sigmoid, aten.sign,
    aten.silu, aten.sin, aten.softplus, aten.sub, aten.tanh, aten.threshold, aten.where,
}
# fmt: on


@dataclass(frozen=True, eq=False)
class Chain:
    """Pointwise nodes that make the last of them a function of a source, element by element."""

    source: Node
    nodes: tuple[Node, ...]

    @property
    def everywhere(self) -> bool:
        """Whether the function may be evaluated at any number."""
        divided = (n for n in self.nodes if _packet(n) is aten.div and not isinstance(n.args[1], Node))
        return {*map(_packet, self.nodes)} - {aten.div for _ in divided} <= _EVERYWHERE

    @property
    def reads_others(self) -> bool:
        """Whether tensors that do not vary take part."""
        return not {m for n in self.nodes for m in n.all_input_nodes} <= {self.source, *self.nodes}


@dataclass(frozen=True, eq=False)
class Plan:
    """What of a model is averaged, by the names of nodes.

    Attributes
    ----------
    chains : dict of Chain
        The pointwise functions that are not linear, by their last nodes.
    stand_ins : dict of StandIn
    skipped : set of str
        What lies inside of chains.
    shapes : dict of Size
        Of the source of each chain, and of the averages of each stand-in, for two rows.
    made_linear : tuple of str
    """

    chains: dict[str, Chain]
    stand_ins: dict[str, StandIn]
    skipped: set[str]
    shapes: dict[str, Size]
    made_linear: tuple[str, ...]


class Examined(Interpreter):
    """One pass of two rows that finds which nodes vary with the points, and which of these are not linear.

    An operator is linear in what varies if its derivative does not depend on it: autograd then keeps
    neither that nor the result.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.varying: set[Node] = set()
        self.curved: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(_memory(tensor))
            return tensor.detach()

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            result = super().run_node(n)
        if n.op == "get_attr":
            return result.detach()
        moving = [m for m in n.all_input_nodes if m in self.varying]
        if (moving and _packet(n) not in _SHAPED) or (n.op == "placeholder" and result.requires_grad):
            self.varying.add(n)
            known = tree_leaves([result, [self.env[m] for m in moving]])
            theirs = {_memory(t) for t in known if isinstance(t, Tensor) and t.numel()}
            if not theirs.isdisjoint(kept) and not (_packet(n) in _LINEAR and _is_linear(n, moving)):
                self.curved.add(n)
        return result

    def plan(self) -> Plan:
        """What is to be averaged.

        Raises
        ------
        NoMeanGateError
            A node is not linear, and there is no stand-in for it.
        """
        source: dict[Node, Node] = {}
        bent: set[Node] = set()
        stand_ins, shapes, read_outside = {}, {}, set()
        nodes = [n for n in self.graph.nodes if n in self.varying or n.op == "output"]
        for n in nodes:
            moving = [m for m in n.all_input_nodes if m in self.varying]
            roots = {source.get(m, m) for m in moving}
            root, value = next(iter(roots), n), self.env[n]
            if is_pointwise(n) and len(roots) == 1 and value.shape == self.env[root].shape:
                source[n] = root
                if n in self.curved or not bent.isdisjoint(moving):
                    bent.add(n)
                continue
            read_outside.update(moving)
            if n in self.curved:
                places = [k for k, a in enumerate(n.args) if isinstance(a, Node) and a in self.varying]
                stand_in = find_stand_in(n.target, places)
                if stand_in is None:
                    raise _refused(n)
                stand_ins[n.name] = stand_in
                args, _ = self.fetch_args_kwargs_from_env(n)
                for k, tensor in enumerate(stand_in.seen(args, value)):
                    shapes[f"{n.name}/{k}"] = tensor.shape
        chains = {}
        for leaf in (n for n in nodes if n in bent and n in read_outside):
            if not self.env[leaf].is_floating_point():
                raise _refused(leaf)
            own, wanted = set(), [leaf]
            while wanted:
                n = wanted.pop()
                if source.get(n) is source[leaf] and n not in own:
                    own.add(n)
                    wanted.extend(n.all_input_nodes)
            chains[leaf.name] = Chain(source[leaf], tuple(n for n in nodes if n in own))
            shapes[source[leaf].name] = self.env[leaf].shape
        made = [n for n in nodes if n.name in chains or n.name in stand_ins]
        skipped = {n.name for n in bent - read_outside}
        return Plan(chains, stand_ins, skipped, shapes, tuple(sorted({str(n.target) for n in made})))


def _packet(node: Node) -> Any:
    return getattr(node.target, "overloadpacket", None)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_linear(node: Node, moving: list[Node]) -> bool:
    operator: Any = node.target
    names = [argument.name for argument in operator._schema.arguments]
    training = any(given is True for name, given in zip(names, node.args, strict=False) if "train" in name)
    return moving == [node.args[0]] and not training


def _refused(node: Node) -> NoMeanGateError:
    reason = f"it is not linear (node {node.name!r}), and mean gates know no average for it"
    return NoMeanGateError(node.target, reason)
