import numpy as np

from tests.onnx.rule_cases.case import case, ints, whole

CASES = [
    case("Gather", (4, 3), ints(2, 0, 2)),
    case("Gather", (4, 3), np.array([[1, -1], [0, 1]]), axis=1),
    case("Gather", (4, 3), whole(-2)),
    case("Gather", (2, 4, 3), whole(1), axis=1),
    case("Gather", (4, 3), np.array([2, 0, -1, 2], np.int32)),
    case("Gather", (2, 4, 3), np.array(-1, np.int32), axis=1),
    case("GatherElements", (3, 2), np.array([[1, -1], [1, 0]], np.int32), axis=0),
    case("GatherElements", (3, 3), np.array([[1, 2, 0], [2, 0, 0]]), axis=0),
    case("GatherND", (3, 2, 2), np.array([[0, 1], [2, 0], [0, 1]])),
    case("Gather", (3, 4, 2), np.array([[3, 1], [-1, 3]]), axis=1),
    case("Gather", (3, 4), np.zeros((0,), np.int64), axis=1),
    case("GatherElements", (3, 4), np.array([[1, -2, 1], [0, 3, 0]]), axis=-1),
    case("GatherND", (2, 3, 4), np.array([[1], [-1]]), batch_dims=1),
    case("GatherND", (2, 2, 3), np.array([[[1, 0], [1, 0]], [[0, 2], [1, 1]]]), batch_dims=1),
    case("GatherND", (3, 2), np.array([[[2]], [[-1]]])),
    case("TopK", (2, 5), ints(3), n_outputs=2),
    case("TopK", (3, 5), ints(2), n_outputs=2, axis=0, largest=0),
    case("TopK", (3, 5), ints(2), n_outputs=2, axis=1, opset=24),
    case("Compress", (3, 4), np.array([True, False, True]), axis=0),
    case("Compress", (3, 4), np.array([False, True]), axis=-1),
    case("Compress", (3, 2), np.array([True, False, False, True, True])),
    case("Unique", np.array([2.0, 1.0, 3.0, -1.0])),
    case("Unique", np.array([[2.0, 1.0, 0.0], [0.5, 3.0, -1.0]]), axis=1),
    case("OneHot", ints(2, 0, -1), whole(4), (2,)),
    case("OneHot", np.array([[1, 7], [0, 2]]), whole(3), (2,), axis=0),
    case("ReverseSequence", (4, 3, 2), ints(4, 1, 3)),
    case("ReverseSequence", (2, 4), ints(4, 2), time_axis=1, batch_axis=0),
]
