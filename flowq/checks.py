"""What is wrong with a workflow: one small function per rule, all problems at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowq.spec import Where


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what to do about it.

    It prints as `file:line:column: FQ103 message`, and its hint on a line of its own.
    """

    code: str
    message: str
    where: Where | None = None
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        level = "warning: " if self.severity == "warning" else ""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{place}{self.code} {level}{self.message}{hint}"
