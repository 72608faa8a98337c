from __future__ import annotations

from functools import partial

from onnx import TensorProto

from mollikit_onnx.rules import Node, Sent, Tensor, rule
from mollikit_onnx.rules.reduction import averaging


@rule("BatchNormalization")
def batch_normalization(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """Y = s (x - m) / sqrt(v + e) + b, channel by channel."""
    if node.attribute("training_mode"):
        node.refuse("training_mode couples the examples of a batch; export the model for inference")
    x, scale, _, mean, variance = node.inputs
    inverse = 1 / (variance + node.attribute("epsilon")).op("Sqrt")
    factor = scale * inverse
    sent: Sent = [g * _by_channel(factor, x.rank)]
    if any(node.wanted[1:]):
        along = _channel_sums(g * (x - _by_channel(mean, x.rank))) * inverse
        total = _channel_sums(g)
        sent += [along, total, -(total * factor), -0.5 * along * factor * inverse]
    return sent


def _by_channel(vector: Tensor, rank: int) -> Tensor:
    """A number for each channel, against (batch, channels, ...)."""
    return vector.op("Unsqueeze", list(range(1, rank - 1))) if rank > 2 else vector


def _channel_sums(x: Tensor) -> Tensor:
    return x.op("ReduceSum", [0, *range(2, x.rank)], keepdims=0)


def _mean(x: Tensor, axes: list[int]) -> Tensor:
    return x.op("ReduceMean", axes, keepdims=1)


def _standardized(x: Tensor, axes: list[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """Return c = x - mean and r = 1 / sqrt(variance + epsilon), which make n = c r."""
    centred = x - _mean(x, axes)
    return centred, 1 / (_mean(centred * centred, axes) + epsilon).op("Sqrt")


def _standardization_adjoint(d: Tensor, centred: Tensor, inverse: Tensor, axes: list[int]) -> Tensor:
    """For n as above and its cotangent d: r (d - mean d - n mean(d n)), n never made as a whole."""
    factor = _mean(d * centred, axes) * (inverse * inverse)
    return (d - centred * factor - _mean(d, axes)) * inverse


def _in(x: Tensor, dtype: int) -> Tensor:
    return x if x.dtype == dtype else x.op("Cast", to=dtype)


def _stash(node: Node) -> int:
    """The dtype of the statistics: that of stash_type, or of a wider input."""
    double: int = TensorProto.DOUBLE
    return double if node.x.dtype == double else node.attribute("stash_type")


@rule("LayerNormalization")
def layer_normalization(node: Node, g: Tensor, *of_statistics: Tensor) -> Sent:
    """Y = s n + b, n standardized over the last axes; the mean and r may have cotangents of their own."""
    x, scale = node.inputs[:2]
    stash, axes = _stash(node), list(range(node.attribute("axis") % x.rank, x.rank))
    wide = partial(_in, dtype=stash)
    if stash == TensorProto.DOUBLE:
        # The operator has its statistics in float32 at best.
        centred, inverse = _standardized(x, axes, node.attribute("epsilon"))
    else:
        kept = (*x.shape[: axes[0]], *(1 for _ in axes))
        mean, inverse = (node.output(k, stash, kept) for k in (1, 2))
        centred = wide(x) - mean
    sent: Sent = [None, None]
    if node.wanted[1]:
        sent[1] = _in((wide(g) * centred * inverse).shaped(x.shape).summed_to(scale), scale.dtype)
    if node.input(2) is not None:
        sent.append(g.summed_to(node.inputs[2]))
    if node.wanted[0]:
        back = _standardization_adjoint((wide(g) * wide(scale)).shaped(x.shape), centred, inverse, axes)
        share = averaging(x, inverse)
        # d mean = mean(dx) and dr = -r^3 mean(c dx).
        for k, cotangent in enumerate(of_statistics):
            part = wide(cotangent) * share
            back = back + (part * (inverse * inverse * inverse) * -centred if k else part)
        sent[0] = _in(back, x.dtype)
    return sent


@rule("RMSNormalization")
def rms_normalization(node: Node, g: Tensor) -> Sent:
    """Y = s n with n = x r, r = 1 / sqrt(mean(x^2) + e); for the cotangent d of n: r (d - n mean(d n))."""
    x, scale = node.inputs
    axes = list(range(node.attribute("axis") % x.rank, x.rank))
    wide = partial(_in, dtype=_stash(node))
    values = wide(x)
    inverse = 1 / (_mean(values * values, axes) + node.attribute("epsilon")).op("Sqrt")
    d, along = wide(g) * wide(scale), None
    if node.wanted[1]:
        along = _in((wide(g) * values * inverse).shaped(x.shape).summed_to(scale), scale.dtype)
    factor = _mean(d * values, axes) * (inverse * inverse)
    return [_in((d - values * factor) * inverse, x.dtype), along]


@rule("InstanceNormalization")
def instance_normalization(node: Node, g: Tensor) -> Sent:
    """Y = s n + b, n standardized over the places of a channel."""
    return [*_over_places(node, node.x, g)]


@rule("GroupNormalization", since=18)
def group_normalization_18(node: Node, g: Tensor) -> Sent:
    """Y = s n + b, n standardized over a group of channels; s and b have a number for each group."""
    sent = _over_places(node, _grouped(node, node.x), _grouped(node, g))
    return [sent[0].reshaped_like(node.x), *sent[1:]]


@rule("GroupNormalization", since=21)
def group_normalization(node: Node, g: Tensor) -> Sent:
    """Y = s n + b, n standardized over a group of channels; s and b have a number for each channel."""
    x, scale, _ = node.inputs
    wide = partial(_in, dtype=_stash(node))
    centred, inverse = _standardized(_grouped(node, wide(x)), [2], node.attribute("epsilon"))
    g = wide(g)
    d = _grouped(node, g * _by_channel(wide(scale), x.rank))
    back = _standardization_adjoint(d, centred, inverse, [2]).reshaped_like(x)
    n = (centred * inverse).reshaped_like(x)
    sent = [back, _channel_sums(g * n), _channel_sums(g)]
    return [_in(cotangent, x.dtype) for cotangent in sent]


def _grouped(node: Node, x: Tensor) -> Tensor:
    return x.op("Reshape", [0, node.attribute("num_groups"), -1])


def _over_places(node: Node, x: Tensor, g: Tensor) -> list[Tensor]:
    axes = list(range(2, x.rank))
    centred, inverse = _standardized(x, axes, node.attribute("epsilon"))
    back = _standardization_adjoint(g * _by_channel(node.inputs[1], x.rank), centred, inverse, axes)
    return [back, _channel_sums(g * centred * inverse), _channel_sums(g)]


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, g: Tensor) -> Sent:
    """Y = (x - mean) / (s + 1e-9) with the deviation s; ds = mean((x - mean) dx) / s."""
    x, axes = node.x, node.attribute("axes")
    centred = x - _mean(x, axes)
    deviation = _mean(centred * centred, axes).op("Sqrt")
    # Where all are equal y is 0 whatever s is, and the quotient is left out.
    below = deviation.where(deviation.op("Greater", 0.0), 1.0)
    over = g / (deviation + 1e-9)
    return [over - _mean(over, axes) - node.y * _mean(over * centred, axes) / below]


@rule("LRN")
def lrn(node: Node, g: Tensor) -> Sent:
    """Y = x / d^beta with d = bias + alpha mean(x^2), the mean over a window of channels."""
    x, y = node.x, node.y
    size, alpha, beta = (node.attribute(name) for name in ("size", "alpha", "beta"))
    before, after = (size - 1) // 2, size // 2
    # (batch, 1, channels, places): a window of channels is one of a picture.
    flat = x.dims(0, 1).op("Concat", [1], x.dims(1, 2), [-1], axis=0)

    def averaged(tensor: Tensor, above: int, below: int) -> Tensor:
        # AveragePool has no bfloat16 before opset 22.
        pooled = TensorProto.FLOAT if x.dtype == TensorProto.BFLOAT16 else x.dtype
        places = _in(tensor.op("Reshape", flat), pooled)
        window = {"kernel_shape": [size, 1], "pads": [above, 0, below, 0], "count_include_pad": 1}
        return _in(places.op("AveragePool", **window), x.dtype).reshaped_like(x)

    divisor = averaged(x * x, before, after) * alpha + node.attribute("bias")
    return [g / divisor.op("Pow", beta) - x * averaged(g * y / divisor, after, before) * (2 * alpha * beta)]


@rule("LpNormalization")
def lp_normalization(node: Node, g: Tensor) -> Sent:
    """Y = x / |x|_p along an axis: (g - |x|_p' sum(g y)) / |x|_p, and 0 where all of x is."""
    x, axis, p = node.x, node.attribute("axis"), node.attribute("p")
    norm = x.op(f"ReduceL{p}", [axis], keepdims=1)
    slope = x.op("Sign") if p == 1 else node.y
    back = g - slope * (g * node.y).op("ReduceSum", [axis], keepdims=1)
    positive = norm.op("Greater", 0.0)
    return [(back / norm.where(positive, 1.0)).where(positive)]


@rule("Dropout")
def dropout(node: Node, g: Tensor, *_: Tensor | None) -> Sent:
    """At inference dy/dx = 1."""
    training = node.input(2)
    if training is not None and (training.value is None or training.value.any()):
        node.refuse("training_mode draws random numbers; export the model for inference")
    return [g]
