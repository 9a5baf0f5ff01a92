"""What was found, for people and for scripts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What a finding means."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing; control works all the same."""
    PROBLEM = "problem"
    """Clocks cannot be controlled, or are not what they should be, until somebody acts."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        verdict: What it means.
        text: What was found.
        advice: What to do about it: commands, or nothing.
    """

    subject: str
    verdict: Verdict
    text: str
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        findings: In the order in which they should be read.
        facts: Figures for scripts.
    """

    findings: Sequence[Finding]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether nothing is in the way of controlling clocks."""
        return all(finding.verdict != Verdict.PROBLEM for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ready": self.ready, "findings": [asdict(finding) for finding in self.findings], **self.facts}
