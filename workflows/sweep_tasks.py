"""The work behind sweep.yaml: a model small enough to be trained by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

DIVERGES_ABOVE = 0.4


def make_data(points: int) -> list[list[float]]:
    """Return noisy points of a curve."""
    chance = random.Random(7)
    return [[x / points, (x / points) ** 2 + chance.gauss(0, 0.01)] for x in range(points)]


def try_setting(data: Sequence[Sequence[float]], depth: int, rate: float) -> dict[str, Any]:
    """Fit a polynomial of that depth step by step; return how well it does."""
    if depth > 2 and rate > DIVERGES_ABOVE:
        raise ArithmeticError(f"depth {depth} diverges at a rate of {rate}")
    weights = [0.0] * (depth + 1)
    for _ in range(400):
        for x, y in data:
            error = sum(weight * x**power for power, weight in enumerate(weights)) - y
            weights = [weight - rate * error * x**power for power, weight in enumerate(weights)]
    loss = sum(
        (sum(weight * x**power for power, weight in enumerate(weights)) - y) ** 2 for x, y in data
    )
    return {"setting": f"depth={depth} rate={rate}", "score": round(1 - loss / len(data) * 50, 4)}


def choose(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the best of the trials that were made."""
    made: list[dict[str, Any]] = [trial["result"] for trial in trials if trial["result"]]
    return max(made, key=lambda result: float(result["score"]))


def train(setting: dict[str, Any]) -> str:
    """Train for good."""
    return f"trained with {setting['setting']}"
