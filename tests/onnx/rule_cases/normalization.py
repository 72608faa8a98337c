import numpy as np

from tests.onnx.rule_cases.case import case, positive

CASES = [
    case("BatchNormalization", (2, 3, 4, 2), (3,), (3,), (3,), positive(3)),
    case("BatchNormalization", (2, 3), (3,), (3,), (3,), positive(3), epsilon=0.1),
    case("Dropout", (2, 3)),
    case("Dropout", (2, 3), np.array(0.5, np.float32), np.array(False)),
    *(case("LayerNormalization", (2, 3, 4), (2, 3, 4)[axis:], axis=axis) for axis in (0, 1, 2)),
    case("LayerNormalization", (2, 3, 4), (4,), (4,)),
    case("LayerNormalization", (2, 3, 4), (3, 1), (1,), axis=-2, epsilon=0.1),
    case("LayerNormalization", (2, 3, 4), (4,), (4,), n_outputs=3),
    case("LayerNormalization", (2, 3, 4), (3, 4), axis=1, n_outputs=2),
    *(case("RMSNormalization", (2, 3, 4), (2, 3, 4)[axis:], axis=axis, opset=23) for axis in (0, -2, 2)),
    case("RMSNormalization", (2, 3, 4), (4,), epsilon=0.1, opset=23),
    case("InstanceNormalization", (2, 3, 4), (3,), (3,)),
    case("InstanceNormalization", (2, 3, 4, 2), (3,), (3,), epsilon=0.1),
    *(
        case("GroupNormalization", (2, 6, 4), (k,), (k,), num_groups=3, opset=v)
        for k, v in ((3, 18), (6, 21))
    ),
    case("GroupNormalization", (2, 4, 3, 2), (2,), (2,), num_groups=2, epsilon=0.1),
    case("GroupNormalization", (2, 4, 3, 2), (4,), (4,), num_groups=4, epsilon=0.1, opset=24),
    case("MeanVarianceNormalization", (2, 3, 4, 2)),
    case("MeanVarianceNormalization", (2, 3, 4), axes=[-1]),
    case("LRN", (2, 5, 3, 2), size=3),
    case("LRN", (2, 5, 3, 2), size=5, alpha=0.5, beta=0.6, bias=0.8),
    case("LRN", (2, 3, 2, 2), size=7, alpha=0.5),
    *(case("LpNormalization", (2, 3, 4), axis=axis, p=p) for axis in (-1, 1) for p in (1, 2)),
]
