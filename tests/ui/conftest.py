"""The page on the server of the tests, asked in this process."""

from __future__ import annotations

import pytest
from redis import Redis
from starlette.testclient import TestClient

import flowq.ui
from tests.runtime.conftest import work

__all__ = ["work"]


@pytest.fixture
def page(connection: Redis) -> TestClient:
    """A client that is authorized as `ada`."""
    return TestClient(flowq.ui.app(connection=connection, authorize=lambda _: "ada"))
