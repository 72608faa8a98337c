from __future__ import annotations

from dataclasses import dataclass, field

from onnx import TensorProto, helper

from mollikit_onnx.errors import ModelError
from mollikit_onnx.graphs.graph import GraphBuilder
from mollikit_onnx.graphs.tensor import Tensor
from mollikit_onnx.mean_gates.chains import Chain
from mollikit_onnx.mean_gates.quadrature import gaussian_slope

# The free batch axis.
ROWS = "mollikit.rows"


@dataclass(frozen=True)
class Spread:
    """Names of what is seen of a chain: by them the forward graph gives it and the linear one takes it.

    With s the source and y the leaf, over the rows of a batch: the mean of s, the sum of (s - mean)^2, the
    mean of y and the sum of (s - mean) (y - mean of y).
    """

    mean: str
    squares: str
    leaf: str
    products: str
    variance: str


@dataclass(frozen=True, eq=False)
class Averages:
    """What the forward passes are averaged for, and where the averages enter the linear model.

    Attributes
    ----------
    seen : GraphBuilder
        The model with a free batch axis, the first; what is averaged is emitted here.
    linear : GraphBuilder
        The linear model of one row; what was averaged is declared here.
    means : list of str
        Outputs of the one and inputs of the other, means over the batch.
    spreads : list of Spread
    """

    seen: GraphBuilder
    linear: GraphBuilder
    prior: float
    means: list[str] = field(default_factory=list)
    spreads: list[Spread] = field(default_factory=list)

    def of(self, x: Tensor) -> Tensor:
        """Average a tensor of the model over the batch, and return its mean in the linear model."""
        name = f"mean_gates/{x.name}.mean"
        if name not in self.means:
            self._give(name, self._summed(x, of_mean=True))
            self.means.append(name)
            self._take(name, x)
        return self.linear.tensor(name)

    def gain(self, chain: Chain) -> Tensor:
        """Return the slope by which the leaf of a chain follows its source, element by element.

        The line that fits the leaf best is s -> Cov(y, s) / Var(s), which is E[dy/ds] where s is normal
        (Stein). Few passes tell it badly, so it is a ridge regression, and the slope to which it is drawn,
        as by ``prior`` passes more, is that of a normal s of the same mean and variance.
        """
        s, y = self.seen.tensor(chain.source), self.seen.tensor(chain.leaf)
        stem = f"mean_gates/{chain.leaf}"
        names = Spread(*(f"{stem}.{part}" for part in ("source", "squares", "leaf", "products", "variance")))
        mean = self._summed(s, of_mean=True)
        centred = s - mean
        self._give(names.mean, mean)
        self._give(names.squares, self._summed(centred * centred))
        level = self._summed(y, of_mean=True)
        self._give(names.leaf, level)
        # The same without the level; with it, little noise would be lost to rounding.
        self._give(names.products, self._summed(centred * (y - level)))
        self.spreads.append(names)
        taken = (names.mean, names.squares, names.products, names.variance)
        mean, squares, products, variance = (
            self._take(name, self.linear.tensor(chain.source)) for name in taken
        )
        # A source that does not vary has the slope of the leaf across a step just above rounding.
        variance = variance + (1 + mean * mean) * 1e-8
        if not chain.everywhere:
            return products / (squares + variance * 1e-6)
        slope = gaussian_slope(chain, mean, variance.op("Sqrt"))
        return (products + slope * variance * self.prior) / (squares + variance * self.prior)

    def _summed(self, x: Tensor, of_mean: bool = False) -> Tensor:
        """Sum over the batch, or mean: onnxruntime does it as a matrix product in a fifth of the time."""
        rows = self.seen.once(("mean_gates/rows", x.dtype), lambda: self._ones(x))
        if of_mean:
            rows = rows / rows.op("ReduceSum", keepdims=0)
        sizes = self._sizes(x)
        return rows.op("MatMul", x.op("Flatten", axis=1)).op("Reshape", [1, *sizes[1:]])

    @staticmethod
    def _ones(x: Tensor) -> Tensor:
        one = x.graph.scalar(1.0, x.dtype)
        return one.op("Expand", x.graph.op("Concat", [1], x.op("Shape", start=0, end=1), axis=0))

    def _give(self, name: str, value: Tensor) -> None:
        self.seen.nodes.append(helper.make_node("Identity", [value.name], [name]))

    def _take(self, name: str, like: Tensor) -> Tensor:
        return self.linear.declare(name, helper.make_tensor_type_proto(like.dtype, self._sizes(like)))

    def _sizes(self, x: Tensor) -> tuple[int, ...]:
        """Shape for one row of a tensor of the model, or of what is made of them."""
        shape = x.shape
        if not x.name.startswith("mean_gates/") and (row := self.linear.tensor(x.name).sizes) is not None:
            shape = row if shape is None or shape[0] in (None, 1, ROWS) else shape
        sizes = [size for size in shape[1:] if isinstance(size, int)] if shape else []
        if not shape or len(sizes) != len(shape) - 1 or x.dtype == TensorProto.UNDEFINED:
            raise ModelError(f"mean gates need the shape of tensor {x.name!r}, which cannot be inferred")
        if shape[0] not in (None, 1, ROWS):
            raise ModelError(
                f"mean gates need the batch as the first axis of tensor {x.name!r}, whose shape is {shape}"
            )
        return (1, *sizes)
