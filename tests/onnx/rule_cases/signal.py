from tests.onnx.rule_cases.case import case, positive, whole

CASES = [
    *(case("DFT", (2, 5, 1), onesided=half, opset=17) for half in (0, 1)),
    *(
        case("DFT", (2, 4, 3, 2), axis=axis, inverse=inverse, opset=18)
        for axis in (1, 2)
        for inverse in (0, 1)
    ),
    *(case("DFT", (2, n, 1), onesided=half) for n in (4, 5) for half in (0, 1)),
    *(case("DFT", (2, 5, 2), whole(n), inverse=inverse) for n in (3, 8) for inverse in (0, 1)),
    *(case("DFT", (2, 5, 1), whole(n), onesided=1) for n in (4, 8)),
    case("DFT", (3, 4, 1), inverse=1),
    case("DFT", (2, 4, 3, 2), None, whole(1)),
    *(case("DFT", (2, 4, 2), *length, inverse=1, onesided=1) for length in ((), (whole(9),))),
    *(case("STFT", (2, 9, 1), whole(step), positive(4), whole(4), onesided=1) for step in (2, 3)),
    case("STFT", (2, 9, 1), whole(2), (5,), whole(5), onesided=1),
    case("STFT", (2, 9, 1), whole(3), None, whole(3), onesided=0),
    case("STFT", (2, 9, 2), whole(3), (4,), onesided=0),
]
