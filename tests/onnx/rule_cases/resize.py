import numpy as np

from tests.onnx.rule_cases.case import case, ints


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


DOUBLED = floats(1, 1, 2, 2)
UNEVEN = floats(1, 1, 1.5, 0.7)
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")

CASES = [
    *(
        case("Resize", (1, 2, 5, 4), None, scales, mode=mode, coordinate_transformation_mode=coordinates)
        for scales in (DOUBLED, UNEVEN)
        for mode in ("linear", "cubic", "nearest")
        for coordinates in COORDINATES
        # There onnx's evaluator goes by the length before it is rounded, onnxruntime by the one after.
        if not (scales is UNEVEN and coordinates == "align_corners")
    ),
    *(
        case("Resize", (1, 2, 5, 4), None, None, ints(1, 2, *sizes), mode=mode, nearest_mode=rounding)
        for sizes in ((7, 3), (10, 12), (5, 9))
        for mode, rounding in (
            ("linear", "floor"),
            ("cubic", "floor"),
            ("nearest", "round_prefer_floor"),
            ("nearest", "round_prefer_ceil"),
            ("nearest", "floor"),
            ("nearest", "ceil"),
        )
    ),
    *(
        case(
            "Resize",
            (1, 2, 5, 4),
            None,
            scales,
            mode="nearest",
            nearest_mode=rounding,
            coordinate_transformation_mode="asymmetric",
        )
        for scales in (DOUBLED, floats(1, 1, 3, 1), floats(1, 1, 1, 1))
        for rounding in ("floor", "ceil", "round_prefer_floor")
    ),
    *(
        case(
            "Resize",
            (1, 1, 5, 4),
            None,
            None,
            ints(1, 1, 7, 3),
            mode=mode,
            coordinate_transformation_mode="align_corners",
        )
        for mode in ("linear", "cubic", "nearest")
    ),
    *(case("Resize", (1, 1, 7, 6), None, UNEVEN, mode=mode, antialias=1) for mode in ("linear", "cubic")),
    *(
        case(
            "Resize",
            (1, 1, 7, 6),
            None,
            None,
            ints(3, 4),
            mode=mode,
            antialias=1,
            axes=[2, 3],
            exclude_outside=outside,
        )
        for mode in ("linear", "cubic")
        for outside in (0, 1)
    ),
    case("Resize", (1, 1, 5, 6), None, UNEVEN, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    case("Resize", (1, 1, 5, 6), None, None, ints(4, 3), mode="linear", axes=[3, 2]),
    *(
        case(
            "Resize",
            (1, 2, 5, 4),
            floats(0, 0, *begin, 1, 1, 0.7, 0.9),
            None,
            ints(1, 2, 6, 3),
            mode=mode,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        )
        for begin in ((0.2, 0.1), (-0.3, 0.1))
        for mode in ("linear", "nearest")
    ),
    case("Resize", (4, 5), None, None, ints(6, 3), mode="linear"),
    case("Resize", (2, 3, 4), None, floats(2, 1, 1.5), mode="nearest"),
    case("Resize", (1, 2, 4, 3, 3), None, floats(1, 1, 1.5, 2, 0.7), mode="linear"),
    case(
        "Resize",
        (1, 2, 2, 3, 3),
        None,
        floats(1, 1, 2, 2, 3),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
    case("Resize", (2, 3, 4, 5), None, None, ints(3, 2, 5, 5), mode="nearest"),
    *(
        case(
            "Resize",
            (1, 1, 3, 4),
            None,
            None,
            ints(7, 8),
            mode="nearest",
            axes=[2, 3],
            keep_aspect_ratio_policy=policy,
        )
        for policy in ("not_larger", "not_smaller")
    ),
]
