import numpy as np

from tests.onnx.rule_cases.case import Case, case

TIME, BATCH, FEATURES, HIDDEN = 4, 3, 2, 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
N_FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
# A weight of 0.5 keeps the states of unbounded activations small.
SMALL = 0.5


def _recurrent(op_type: str, *optional: str, lengths: bool = False, **attributes: object) -> Case:
    """A recurrent node with the named optional inputs."""
    n_directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rng = np.random.default_rng(5)
    gates = GATES[op_type] * HIDDEN
    data, states = (TIME, BATCH, FEATURES), (n_directions, BATCH, HIDDEN)
    if attributes.get("layout"):
        data, states = (BATCH, TIME, FEATURES), (BATCH, n_directions, HIDDEN)
    rest = {
        "bias": (n_directions, 2 * gates),
        "lengths": np.array([4, 1, 3], np.int32) if lengths else None,
        "hidden": states,
        "cell": states,
        "peepholes": (n_directions, 3 * HIDDEN),
    }
    given = [x if name in optional or name == "lengths" else None for name, x in rest.items()]
    while given and given[-1] is None:
        given.pop()
    weights = [SMALL * rng.standard_normal((n_directions, gates, n)) for n in (FEATURES, HIDDEN)]
    n_outputs = 3 if op_type == "LSTM" else 2
    return case(op_type, data, *weights, *given, hidden_size=HIDDEN, n_outputs=n_outputs, **attributes)


def _activations(op_type: str, name: str) -> list[str]:
    """The gates of a GRU and of an LSTM stay bounded."""
    return [name] if op_type == "RNN" else ["Sigmoid", *[name] * (N_FUNCTIONS[op_type] - 1)]


STATES = {"RNN": ("hidden",), "GRU": ("hidden",), "LSTM": ("hidden", "cell")}

CASES = [
    *(_recurrent(op) for op in GATES),
    *(_recurrent(op, "bias", *STATES[op], direction=way) for op in GATES for way in ("forward", "reverse")),
    *(_recurrent(op, "bias", *STATES[op], direction="bidirectional", lengths=True) for op in GATES),
    *(_recurrent(op, "bias", direction="reverse", lengths=True) for op in GATES),
    *(_recurrent(op, "bias", clip=0.4) for op in ("RNN", "GRU")),
    _recurrent("GRU", "bias", "hidden", linear_before_reset=1),
    _recurrent("GRU", "bias", "hidden", linear_before_reset=1, direction="bidirectional", lengths=True),
    _recurrent("GRU", linear_before_reset=1, direction="reverse"),
    _recurrent("LSTM", "bias", "hidden", "cell", "peepholes"),
    _recurrent("LSTM", "bias", "hidden", "cell", "peepholes", direction="bidirectional", lengths=True),
    _recurrent("LSTM", "peepholes", input_forget=1),
    _recurrent("LSTM", "bias", input_forget=1, direction="reverse", lengths=True),
    *(
        _recurrent(op, "bias", "hidden", activations=_activations(op, name), **options)
        for op in GATES
        for name, options in (
            ("Elu", {}),
            ("HardSigmoid", {"activation_alpha": [0.3, 0.2], "activation_beta": [0.4, 0.6]}),
            ("LeakyRelu", {}),
            ("Relu", {}),
            ("Softplus", {}),
            ("Softsign", {}),
        )
    ),
    *(
        _recurrent("RNN", activations=[name], activation_alpha=[0.6], **options)
        for name, options in (
            ("Affine", {"activation_beta": [0.4]}),
            ("ScaledTanh", {"activation_beta": [0.4]}),
            ("ThresholdedRelu", {}),
        )
    ),
    _recurrent(
        "LSTM",
        activations=["HardSigmoid", "LeakyRelu", "ScaledTanh"],
        activation_alpha=[0.3, 0.2, 0.8],
        activation_beta=[0.4, 0.6],
    ),
    *(_recurrent(op, direction="bidirectional", opset=22) for op in GATES),
]
