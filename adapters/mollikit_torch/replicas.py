from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mollikit_torch.modes import refuse_train_mode
from mollikit_torch.tensors import array_of


class Source(Protocol):
    """Where an oracle gets what it calls."""

    @contextmanager
    def model(self) -> Iterator[Callable[..., Any]]:
        """Give the model to this thread for one call."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Parameters of floats by name, as `reweighted` takes them; empty where there are none to replace."""
        ...

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        """Return the same model with other tensors in the place of some of its weights."""
        ...

    def digest(self) -> str | None:
        """Sha256 of the model's weights, in hexadecimal; None where they are not known."""
        ...


class Replicas:
    """Copies of a module, one a thread, that share its frozen weights.

    A copy of the module's objects keeps all that a forward pass may write (attributes, buffers, hooks of the
    layer smoothed) away from the caller's module and from the other threads. Parameters are shared, so
    that training in place is seen; every call starts from the caller's buffers. The modes are those
    that the module had when the copy was made.

    Raises
    ------
    ValueError
        A layer is in train mode, or its parameters have no data yet.
    TypeError
        The module cannot be copied.
    """

    def __init__(self, module: nn.Module, device: torch.device | None) -> None:
        refuse_train_mode(module)
        self.master = frozen(module, device)
        self._own = _Own()

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        yield self.replica().module

    def replica(self) -> _Replica:
        """Return this thread's copy, as the caller's module is now."""
        if self._own.replica is None:
            self._own.replica = _Replica(self.master)
        self._own.replica.reset()
        return self._own.replica

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return _weights(self.master)

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        return Reweighted(self, weights)

    def digest(self) -> str:
        return _digest(self.master)

    def __getstate__(self) -> nn.Module:
        return self.master

    def __setstate__(self, master: nn.Module) -> None:
        self.master = master
        self._own = _Own()


class Reweighted:
    """Replicas that have other tensors in the place of some of their weights while a call lasts.

    The tensors are lent to the parameters of the thread's own replica, and to nobody else's; whatever
    refers to a parameter, a tied layer for instance, sees them.
    """

    def __init__(self, replicas: Replicas, weights: Mapping[str, Tensor]) -> None:
        self._replicas, self._weights = replicas, dict(weights)

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        replica = self._replicas.replica()
        with replica.lent(self._weights):
            yield replica.module

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return {**self._replicas.weights, **self._weights}

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        return Reweighted(self._replicas, {**self._weights, **weights})

    def digest(self) -> str:
        with torch.inference_mode(False), self.model() as module:
            return _digest(module)


class Compiled:
    """One compiled copy of a module for all threads; it is compiled by its first call in a process."""

    def __init__(self, module: nn.Module, device: torch.device | None) -> None:
        refuse_train_mode(module)
        self._ready(frozen(module, device))

    def _ready(self, master: nn.Module) -> None:
        self.master = master
        self._own = _CompiledReplica(master)
        # Other weights are lent to a copy that nobody else calls meanwhile.
        self.lending = _CompiledReplica(master)

    @contextmanager
    def model(self) -> Iterator[Callable[..., Any]]:
        if self._own.called:
            yield self._own.module
        else:
            with self._own.lock:
                yield self._own.module
            self._own.called = True

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return _weights(self.master)

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        return ReweightedCompiled(self, weights)

    def digest(self) -> str:
        return _digest(self.master)

    def __getstate__(self) -> nn.Module:
        return self.master

    def __setstate__(self, master: nn.Module) -> None:
        self._ready(master)


class ReweightedCompiled:
    """A compiled module with other tensors in the place of some of its weights: one call at a time."""

    def __init__(self, compiled: Compiled, weights: Mapping[str, Tensor]) -> None:
        self._compiled, self._weights = compiled, dict(weights)

    @contextmanager
    def model(self) -> Iterator[Callable[..., Any]]:
        lending = self._compiled.lending
        with lending.lock, lending.replica.lent(self._weights):
            lending.replica.reset()
            yield lending.module

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return {**self._compiled.weights, **self._weights}

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        return ReweightedCompiled(self._compiled, {**self._weights, **weights})

    def digest(self) -> str:
        replica = _Replica(self._compiled.master)
        with torch.inference_mode(False), replica.lent(self._weights):
            return _digest(replica.module)


class Function:
    """A plain function, called as it is from every thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @contextmanager
    def model(self) -> Iterator[Callable[..., Any]]:
        yield self.function

    @property
    def weights(self) -> Mapping[str, Tensor]:
        return {}

    def reweighted(self, weights: Mapping[str, Tensor]) -> Source:
        return self

    def digest(self) -> None:
        return None


class _Replica:
    """A copy of a frozen module with the same weights, in parameters and with buffers of its own."""

    def __init__(self, master: nn.Module) -> None:
        shared: dict[int, Any] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._buffers = []
        with torch.inference_mode(False), torch.no_grad():
            for name, parameter in _named_parameters(master):
                self._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=False)
                shared[id(parameter)] = self._parameters[name]
            for buffer in master.buffers():
                shared[id(buffer)] = buffer.clone()
            self.module = copy.deepcopy(master, shared)
        for (name, theirs), owner in _named_buffers(master, self.module):
            self._buffers.append((owner, name, getattr(owner, name), theirs))

    def reset(self) -> None:
        """Undo what earlier calls did to the buffers."""
        with torch.inference_mode(False), torch.no_grad():
            for owner, name, own, theirs in self._buffers:
                own.copy_(theirs)
                if getattr(owner, name) is not own:
                    setattr(owner, name, own)

    @contextmanager
    def lent(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Put other tensors in the place of these weights, while inside."""
        own = {name: self._parameters[name].data for name in weights}
        try:
            for name, tensor in weights.items():
                self._parameters[name].data = tensor
            yield
        finally:
            for name, tensor in own.items():
                self._parameters[name].data = tensor


class _CompiledReplica:
    """A copy, with buffers of its own, that is compiled by its first call."""

    def __init__(self, master: nn.Module) -> None:
        self.replica = _Replica(master)
        self.module: Callable[..., Any] = torch.compile(self.replica.module)
        self.lock = threading.Lock()
        self.called = False


class _Own(threading.local):
    replica: _Replica | None = None


def frozen(module: nn.Module, device: torch.device | None) -> nn.Module:
    """Return a copy of a module that shares its tensors and whose parameters take no gradients.

    On another device than the module's, the tensors are copies.
    """
    shared: dict[int, Any] = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, parameter in module.named_parameters():
            if is_lazy(parameter) or parameter.is_meta:
                raise ValueError(
                    f"parameter {name!r} has no data yet: load the weights, or run the model once, first"
                )
            shared[id(parameter)] = nn.Parameter(_shared(parameter), requires_grad=False)
        for owner in module.modules():
            # Buffers, and tensors kept as plain attributes.
            for tensor in (*owner.buffers(recurse=False), *vars(owner).values()):
                if isinstance(tensor, Tensor):
                    shared[id(tensor)] = _shared(tensor)
        try:
            replica = copy.deepcopy(module, shared)
        except Exception as error:
            raise TypeError(
                f"The oracle calls a copy of the model that shares its weights, and {type(module).__name__} "
                f"cannot be copied ({error}): take that attribute out of it, or give a function that calls "
                "the model, such as lambda x: model(x), which is called as it is"
            ) from error
        return replica if device is None else replica.to(device)


def _shared(tensor: Tensor) -> Tensor:
    # A tensor made under inference_mode cannot take part in a gradient.
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _named_buffers(master: nn.Module, replica: nn.Module) -> Iterator[tuple[tuple[str, Tensor], nn.Module]]:
    for theirs, own in zip(master.modules(), replica.modules(), strict=True):
        for named in theirs.named_buffers(recurse=False):
            yield named, own


def _named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by the names that they have when nothing is compiled, so that they are perturbed alike."""
    for name, parameter in module.named_parameters():
        yield name.replace("_orig_mod.", ""), parameter


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in _named_parameters(module) if p.is_floating_point()}


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(array_of(tensor).tobytes())
    return digest.hexdigest()
