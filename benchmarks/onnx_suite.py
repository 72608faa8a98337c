"""Score onnx's own backend suite and write the table of operators: docs/onnx-operators.md.

    python benchmarks/onnx_suite.py

The table says for each operator what `mollikit_onnx.vjp` does with the suite's cases; how they are scored is
said in tests/onnx/backend_suite.py.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from mollikit_onnx.registry import expandable, is_constant_by_law, registered  # noqa: E402
from mollikit_onnx.rules import load_rules  # noqa: E402
from onnx import defs  # noqa: E402

from tests.onnx.backend_suite import score, suite  # noqa: E402

TABLE = ROOT / "docs" / "onnx-operators.md"
COLUMNS = ("operator", "versions", "gradient", "cases", "passed", "refused", "not scorable")
HEAD = """# Operators with a gradient

Written by `benchmarks/onnx_suite.py` with onnx {onnx} and onnxruntime {runtime}.

**{passed} of {scorable} scorable cases pass ({share:.1%}); {refused} are refused before anything runs;
{wrong} are wrong.** Not scorable are {unscorable}: they draw random numbers, their values are not numbers, or
their shapes depend on the values.

The cases are those of `onnx.backend.test` with a float input and a float output. How each is scored against
central differences is said in `tests/onnx/backend_suite.py`; `tests/onnx/test_backend_suite.py` runs them all
with every test run. An operator without a case there has its own in `tests/onnx/`.

*versions*: of the operator in ONNX; models are brought to operator set 18 or later first. *gradient*: by a
**rule** of its own; by its function **body** or an expansion, written out in others that have one; **zero**
where the operator is piecewise constant or its result is no real number.

"""


def gradient_of(domain: str, name: str) -> str:
    ruled, written = set(registered()), set(expandable())
    if (domain, name) in ruled:
        return "rule"
    if is_constant_by_law(domain, name):
        return "zero"
    if (domain, name) in written:
        return "body"
    if defs.has(name, domain):
        schema = defs.get_schema(name, domain=domain)
        return "body" if schema.has_function or schema.has_context_dependent_function else "none"
    return "none"


def main() -> None:
    load_rules()
    outcomes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for case in suite().values():
        domain, _, name = case.operator.rpartition(".")
        found = score(case)
        outcomes[domain, name][found.outcome] += 1
        if found.outcome in ("wrong", "broken"):
            print(case.name, found)
    total = sum(outcomes.values(), Counter())
    for key in {*registered(), *expandable()} - outcomes.keys():
        if key[0] in ("", "ai.onnx.ml", "com.microsoft"):
            outcomes[key] = Counter()
    versions = defaultdict(list)
    for schema in defs.get_all_schemas_with_history():
        versions[schema.domain, schema.name].append(schema.since_version)
    rows = [
        (
            f"{domain}.{name}" if domain else name,
            ", ".join(map(str, sorted(versions[domain, name]))) or "1",
            gradient_of(domain, name),
            str(sum(counts.values())),
            *(str(counts[outcome]) for outcome in ("passed", "refused", "unscorable")),
        )
        for (domain, name), counts in sorted(outcomes.items())
    ]
    scorable = total.total() - total["unscorable"]
    with TABLE.open("w", encoding="utf-8") as file:
        head = HEAD.format(
            onnx=onnx.__version__,
            runtime=onnxruntime.__version__,
            passed=total["passed"],
            scorable=scorable,
            share=total["passed"] / scorable,
            refused=total["refused"],
            wrong=total["wrong"] + total["broken"],
            unscorable=total["unscorable"],
        )
        file.write(head)
        for row in (COLUMNS, tuple("---" for _ in COLUMNS), *rows):
            file.write(f"| {' | '.join(row)} |\n")
    print(total)


if __name__ == "__main__":
    main()
