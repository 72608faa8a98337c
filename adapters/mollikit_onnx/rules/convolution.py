from __future__ import annotations

from mollikit_onnx.graphs.windows import Windows
from mollikit_onnx.rules import Node, Sent, Tensor, rule


@rule("Conv")
def conv(node: Node, g: Tensor) -> Sent:
    """Adjoints of the correlation of x and weight, which is linear in each."""
    x, weight = node.inputs[:2]
    windows, group = Windows.of(node), node.attribute("group")
    sent: Sent = [None] * len(node.inputs)
    if node.wanted[0]:
        sent[0] = windows.adjoint(g, weight, x, group)
    if node.wanted[1]:
        sent[1] = windows.weight_gradient(g, x, weight, group)
    if len(node.inputs) > 2 and node.wanted[2]:
        sent[2] = g.op("ReduceSum", [0, *range(2, 2 + len(windows.kernel))], keepdims=0)
    return sent


@rule("ConvTranspose")
def conv_transpose(node: Node, g: Tensor) -> Sent:
    """Y is the adjoint of a convolution over windows of y, so that convolution is the adjoint."""
    x, weight = node.inputs[:2]
    group = node.attribute("group")
    windows, padded = _of_output(node, g)
    sent: Sent = [None] * len(node.inputs)
    if node.wanted[0]:
        options = {"strides": windows.strides, "dilations": windows.dilations}
        convolved = padded.op("Conv", weight, group=group, pads=[*windows.begin, *windows.end], **options)
        sent[0] = convolved.shaped(x.shape)
    if node.wanted[1]:
        sent[1] = windows.weight_gradient(x, padded, weight, group)
    if len(node.inputs) > 2 and node.wanted[2]:
        sent[2] = g.op("ReduceSum", [0, *range(2, 2 + len(windows.kernel))], keepdims=0)
    return sent


def _of_output(node: Node, g: Tensor) -> tuple[Windows, Tensor]:
    """Windows over the output, and g, which has the pads already where these are known at run time only."""
    windows, size = Windows.written(node), node.attribute("output_shape")
    if size is not None and node.y.rank != node.x.rank:
        node.refuse("onnx infers a wrong shape where output_shape is below the input's sizes; give the pads")
    auto, extra = node.attribute("auto_pad"), node.attribute("output_padding") or [0] * len(windows.kernel)
    reach = [a + b for a, b in zip(windows.reach, extra, strict=True)]
    if size is None and auto in ("NOTSET", "VALID"):
        return (windows if auto == "NOTSET" else windows.padded_by([0] * len(reach), upper=True)), g
    if size is None:
        # The sizes are multiplied by the strides.
        pads = [r - stride for r, stride in zip(reach, windows.strides, strict=True)]
        if min(pads) < 0 or any(extra):
            node.refuse(
                f"auto_pad {auto} with output_padding or a kernel shorter than its stride has a "
                "size on which onnx and onnxruntime do not agree; write the pads down"
            )
        return windows.padded_by(pads, upper=auto == "SAME_UPPER"), g
    behind = [r - stride - n for r, stride, n in zip(reach, windows.strides, size, strict=True)]
    total = (node.x.dims(2).op("Mul", windows.strides).op("Add", behind)).op("Max", 0)
    half = total.op("Div", 2)
    begin, end = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
    axes = list(range(2, 2 + len(reach)))
    none = windows.padded_by([0] * len(reach), upper=True)
    return none, g.op("Pad", begin.op("Concat", end, axis=0), None, axes)
