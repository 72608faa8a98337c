import numpy as np

from tests.onnx.rule_cases.case import case, positive

TARGET = np.array([2, 0, 1, 2])
PLACES = np.array([[2, 0, 1], [0, 0, 2]])

CASES = [
    *(
        case(op, *inputs, reduction=reduction)
        for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        for reduction in ("none", "sum", "mean")
        for inputs in (
            ((4, 3), TARGET),
            ((4, 3), TARGET, positive(3)),
            ((2, 3, 3), PLACES, positive(3)),
            ((2, 3, 3, 1), PLACES[..., None].astype(np.int32)),
        )
    ),
    *(
        case(op, (2, 3, 3), PLACES, *weight, reduction=reduction, ignore_index=0)
        for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
        for reduction in ("none", "mean")
        for weight in ((), (positive(3),))
    ),
    case("SoftmaxCrossEntropyLoss", (2, 3, 3), np.array([[2, -1, 1], [0, -1, 2]]), ignore_index=-1),
    case("SoftmaxCrossEntropyLoss", (4, 3), TARGET, n_outputs=2),
    case("SoftmaxCrossEntropyLoss", (2, 3, 3), PLACES, positive(3), n_outputs=2, reduction="none"),
]
