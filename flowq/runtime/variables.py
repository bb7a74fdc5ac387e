"""The variables of the environment that say which server is meant."""

from __future__ import annotations

SERVER = ("FLOWQ_REDIS_URL", "RQ_REDIS_URL")
"""In the order in which they are looked at. A job that is a command does not get them: there may be
a password in them, and much prints its environment."""
