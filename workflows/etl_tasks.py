"""The functions of etl.yaml: a warehouse in one file."""

from __future__ import annotations

import csv
import random
import sqlite3
from pathlib import Path


def extract(region: str, kind: str, day: str, folder: str) -> str:
    """Write what a region has of a day, and return where."""
    chance = random.Random(f"{region} {kind} {day}")
    rows = [
        (region, kind, number, chance.randint(1, 500)) for number in range(chance.randint(5, 40))
    ]
    file = Path(folder, day, f"{region}-{kind}.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return str(file)


def check(files: list[str]) -> int:
    """Return how many rows there are, all of which have an amount."""
    rows = [row for file in files for row in _read(file)]
    bad = [row for row in rows if int(row[3]) <= 0]
    if bad:
        raise ValueError(f"{len(bad)} rows without an amount, the first is {bad[0]}")
    return len(rows)


def load(files: list[str], rows: int, database: str) -> str:
    """Load all files in one transaction, and return where."""
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("drop table if exists sales")
        connection.execute("create table sales (region, kind, number, amount integer)")
        for file in files:
            connection.executemany("insert into sales values (?, ?, ?, ?)", _read(file))
        (count,) = connection.execute("select count(*) from sales").fetchone()
        if count != rows:
            raise ValueError(f"{count} rows instead of {rows}")
    connection.close()
    return database


def tell(status: str, rows: int | None) -> str:
    """Return what the night's mail says."""
    return f"load {status}, {rows} rows"


def _read(file: str) -> list[list[str]]:
    with Path(file).open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))
