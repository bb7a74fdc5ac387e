"""What changed of the code of a run's jobs between one job and another."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowq.runtime import keys
from flowq.status import CodeChange

if TYPE_CHECKING:
    from redis import Redis


def read_changes(run_id: str, connection: Redis) -> list[CodeChange]:
    """Return the changes of a run's code, in the order in which they came about.

    A change and its way back are two. Files that only one job had cannot have changed.
    """
    raw: Any = connection.hvals(keys.run_code(run_id))
    versions = sorted((json.loads(each) for each in raw), key=lambda told: told["at"])
    known: dict[str, tuple[str, str]] = {}
    changes = []
    for told in versions:
        for file, digest in told["files"].items():
            before, job = known.get(file, (digest, ""))
            if before != digest:
                at = datetime.fromtimestamp(told["at"], UTC)
                changes.append(CodeChange(file, job, told["job"], at))
            if before != digest or file not in known:
                known[file] = digest, told["job"]
    return changes
