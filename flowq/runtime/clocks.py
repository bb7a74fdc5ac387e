"""The clock of the server, by which everything that is due is decided, and those of hosts.

Scripts ask it themselves (`lua/common.lua`). Where Python has to name an instant that is compared
with others later, it asks with `read_clock`: the clock of a host may be wrong by hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

MAX_DIFFERENCE_S = 5.0
"""How far the clock of a host may be from that of the server."""


def read_clock(connection: Redis) -> float:
    """Return the server's clock in epoch seconds."""
    seconds, microseconds = connection.time()
    return float(seconds + microseconds / 1e6)


def clock_warning(theirs_s: float, before_s: float, after_s: float) -> str:
    """Return what to say of a clock of ours that differs from the server's; "" when all is well.

    `theirs_s` was read on the server between the other two, which were read here.
    """
    difference_s = max(before_s - theirs_s, theirs_s - after_s)
    if difference_s <= MAX_DIFFERENCE_S:
        return ""
    how = "ahead of" if before_s > theirs_s else "behind"
    return (
        f"the clock of this host is {difference_s:.0f} s {how} the server's, which decides what is "
        "due; set it right (NTP), because RQ's own tools and the times that are shown go by it"
    )
