"""How many commands the test server has executed.

The counts are of the whole server. Its guardian asks INFO now and then, and so do these functions.
"""

from __future__ import annotations

from typing import Any

from redis import Redis

NOT_COUNTED = {"cmdstat_info", "cmdstat_config|resetstat"}


def calls_per_command(connection: Redis) -> dict[str, int]:
    """Return the calls since the last CONFIG RESETSTAT, also those in scripts, without INFO."""
    stats: dict[str, Any] = connection.info("commandstats")
    return {name: stat["calls"] for name, stat in stats.items() if name not in NOT_COUNTED}


def count_calls(connection: Redis) -> int:
    """Return their sum."""
    return sum(calls_per_command(connection).values())
