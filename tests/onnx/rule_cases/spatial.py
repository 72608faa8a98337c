from tests.onnx.rule_cases.case import case, ints

CASES = [
    case("SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    *(case("DepthToSpace", (2, 8, 3, 2), blocksize=2, mode=mode) for mode in ("DCR", "CRD")),
    case("DepthToSpace", (1, 18, 1, 2), blocksize=3, mode="CRD"),
    case("CenterCropPad", (4, 5, 3), ints(3, 8, 3)),
    case("CenterCropPad", (5, 4, 2), ints(2, 7), axes=[0, 1]),
    case("CenterCropPad", (5, 4, 2), ints(5, 8), axes=[-1, 0]),
    case("Col2Im", (2, 12, 6), ints(4, 4), ints(3, 2), strides=[1, 1], pads=[0, 0, 0, 0]),
    case("Col2Im", (1, 8, 9), ints(5, 6), ints(2, 2), strides=[2, 2], pads=[0, 1, 1, 0]),
    case("Col2Im", (1, 6, 6), ints(4, 6), ints(2, 3), dilations=[1, 2]),
    case("Col2Im", (2, 3, 5), ints(7), ints(3)),
    *(case("AffineGrid", (2, 2, 3), ints(2, 3, 4, 5), align_corners=align) for align in (0, 1)),
    case("AffineGrid", (2, 3, 4), ints(2, 1, 3, 2, 4)),
]
