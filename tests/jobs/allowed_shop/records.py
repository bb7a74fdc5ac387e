"""Classes that are made with libraries."""

from __future__ import annotations

import attrs
import pydantic


@attrs.frozen
class Item:
    """With attrs."""

    number: int


class Form(pydantic.BaseModel):
    """With Pydantic."""

    name: str
    items: list[int] = []
