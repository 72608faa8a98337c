from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a finding is to be taken."""

    GOOD = "good"
    REMARK = "remark"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was looked at.
    verdict : Verdict
    message : str
        What was found, in words.
    mend : str
        What to do; empty where there is nothing to be done.
    figures : mapping
        The numbers behind it, ready for JSON.
    """

    check: str
    verdict: Verdict
    message: str
    mend: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "message": self.message,
            "mend": self.mend,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True)
class Health:
    """What an examination found."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing must be mended before the gradients are smoothed; there may be remarks."""
        return all(finding.verdict is not Verdict.FAULT for finding in self.findings)

    def __getitem__(self, check: str) -> Finding:
        """The finding of a check.

        Raises
        ------
        KeyError
            There was no such check.
        """
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"{check!r} was not looked at, but {[finding.check for finding in self.findings]}")
