import numpy as np

from tests.onnx.rule_cases.case import case

# Beyond the ends of the picture on both sides, once and twice.
GRID = np.random.default_rng(9).uniform(-1.7, 1.7, (2, 3, 2, 2))
FAR = 2.5 * GRID
VOLUME = np.random.default_rng(10).uniform(-1.7, 1.7, (1, 2, 2, 3, 3))
# Also one that ends outside of the picture, and one of less than an element.
ROIS = np.array([[0.4, 0.7, 2.9, 3.6], [-1.3, 0.2, 5.8, 3.1], [1.1, 1.2, 1.5, 1.4]])

CASES = [
    *(
        case("GridSample", (2, 3, 4, 5), grid, mode=mode, padding_mode=padding, align_corners=corners)
        for mode in ("linear", "cubic", "nearest")
        for grid, padding in ((GRID, "zeros"), (GRID, "border"), (FAR, "reflection"))
        for corners in (0, 1)
    ),
    *(
        case(
            "GridSample", (1, 2, 3, 4, 2), VOLUME, mode="linear", padding_mode=padding, align_corners=corners
        )
        for padding, corners in (("zeros", 0), ("border", 1), ("reflection", 0))
    ),
    case("GridSample", (1, 2, 3, 4, 2), VOLUME, mode="nearest"),
    case("GridSample", (2, 1, 4, 3), GRID, mode="bilinear", opset=16),
    case("GridSample", (2, 1, 4, 3), GRID, mode="bicubic", opset=18),
    case("GridSample", (2, 1, 1, 3), GRID, padding_mode="reflection", align_corners=1),
    *(
        case(
            "RoiAlign",
            (2, 3, 5, 6),
            ROIS,
            np.array([1, 0, 1]),
            output_height=2,
            output_width=3,
            sampling_ratio=ratio,
            coordinate_transformation_mode=coordinates,
            spatial_scale=scale,
        )
        for ratio in (0, 1, 2)
        for coordinates, scale in (("half_pixel", 1.0), ("output_half_pixel", 0.7))
    ),
    case("RoiAlign", (1, 2, 4, 4), 20 * ROIS, np.array([0, 0, 0]), spatial_scale=1 / 16),
    case("DeformConv", (1, 2, 4, 5), (3, 2, 2, 2), (1, 8, 3, 4), (3,)),
    case("DeformConv", (2, 4, 3, 3), (2, 2, 2, 1), (2, 8, 2, 3), None, (2, 4, 2, 3), group=2, offset_group=2),
    case(
        "DeformConv",
        (1, 2, 5, 5),
        (2, 2, 2, 3),
        (1, 12, 3, 3),
        (2,),
        (1, 6, 3, 3),
        strides=[2, 1],
        dilations=[1, 2],
        pads=[1, 2, 0, 0],
    ),
]
