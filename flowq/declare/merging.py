"""An edge that is said in several places is one edge."""

from __future__ import annotations

from collections.abc import Iterable

from flowq.spec import Block


def merge_blocks(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return each future job once, with the policy that one of the places says."""
    block_by_name: dict[str, Block] = {}
    for block in blocks:
        if block.name not in block_by_name or block.on_failure is not None:
            block_by_name[block.name] = block
    return tuple(block_by_name.values())
