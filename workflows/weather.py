"""The twin of weather.yaml: both declare the same workflow, and run the same functions.

flowq run workflows/weather.py:flow -i station=Lima
"""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import flowq

flow = flowq.Workflow(
    "weather",
    "A week of readings, and what to make of them",
    inputs={
        "station": "Bergen",
        "days": 7,
        "out": {"type": "path", "default": "out", "description": "The folder for the report"},
    },
    defaults={"timeout": "1m"},
)


@flow.job
def report(
    title: str, readings: list[float], mean: float, extremes: dict[str, float], path: str
) -> str:
    """Write the readings as a picture, and return where it is."""
    low, high = extremes["low"], extremes["high"]
    bars = "".join("▁▂▃▄▅▆▇█"[math.floor(7.99 * (r - low) / (high - low or 1))] for r in readings)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{title}\n{bars}  {low} to {high} °C, {mean} on average\n", encoding="utf-8")
    return str(file)


@flow.job(
    with_={"station": flow.inputs.station, "days": flow.inputs.days},
    retries={"max": 2, "backoff": "1s"},
    timeout="20s",
)
def measure(station: str, days: int) -> list[float]:
    """Return four readings a day; a station always has the same weather."""
    chance = random.Random(station)
    warmth = chance.uniform(0, 20)
    return [
        round(warmth + 6 * math.sin(quarter * math.pi / 2) + chance.gauss(0, 2), 1)
        for quarter in range(4 * days)
    ]


@flow.job(with_={"readings": measure.result}, blocks=report)
def mean(readings: list[float]) -> float:
    """Return the mean of the readings."""
    return round(statistics.fmean(readings), 1)


@flow.job(with_={"readings": measure.result}, blocks=report)
def extremes(readings: list[float]) -> dict[str, float]:
    """Return the coldest and the warmest reading."""
    return {"low": min(readings), "high": max(readings)}


report.bind(
    title=f"Weather in {flow.inputs.station}",
    readings=measure.result,
    mean=mean.result,
    extremes=extremes.result,
    path=f"{flow.inputs.out}/weather.txt",
)
