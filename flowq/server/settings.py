"""What every embedded server is told, whoever starts it."""

from __future__ import annotations

SETTINGS = {
    "save": "",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    # RQ keeps the result of each job in a stream of its own; its one entry would be given 4 KB.
    "stream-node-max-bytes": "512",
    # A job with some arguments takes half of the memory when its hash stays in one piece.
    "hash-max-ziplist-value": "1024",
}
