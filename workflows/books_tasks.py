"""The work behind books.yaml: real files and a real database, made with the standard library."""

from __future__ import annotations

import csv
import random
import sqlite3
import zipfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

COUNTRIES = ("Denmark", "France", "Ghana", "Japan", "Peru")
CUSTOMERS = 60


def fetch_orders(month: str, count: int, folder: str) -> str:
    """Write the raw orders, of which some are broken, and return their file."""
    chance = random.Random(month)
    rows = [_order(chance, month, number) for number in range(1, count + 1)]
    return _write_csv(Path(folder) / "orders.csv", ("id", "day", "customer", "amount"), rows)


def _order(chance: random.Random, month: str, number: int) -> tuple[Any, ...]:
    amount = round(chance.lognormvariate(3.5, 0.8), 2)
    kind = chance.random()
    said = "" if kind < 0.02 else -amount if kind < 0.06 else amount
    return number, f"{month}-{chance.randint(1, 28):02}", chance.randint(1, CUSTOMERS), said


def fetch_customers(folder: str) -> str:
    """Write the customers, and return their file."""
    chance = random.Random("customers")
    rows = [(n, f"Customer {n:03}", chance.choice(COUNTRIES)) for n in range(1, CUSTOMERS + 1)]
    return _write_csv(Path(folder) / "customers.csv", ("id", "name", "country"), rows)


def _write_csv(path: Path, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return str(path)


def build_ledger(orders: str, customers: str) -> dict[str, Any]:
    """Join orders and customers in a database; orders without an amount are dropped."""
    path = Path(orders).with_name("ledger.sqlite")
    path.unlink(missing_ok=True)  # a second attempt begins anew
    read = _read_csv(orders)
    kept = [row for row in read if row["amount"]]
    with closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, country TEXT)")
        ledger.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, amount REAL)"
        )
        ledger.executemany(
            "INSERT INTO customers VALUES (:id, :name, :country)", _read_csv(customers)
        )
        ledger.executemany("INSERT INTO orders VALUES (:id, :customer, :amount)", kept)
    return {"path": str(path), "kept": len(kept), "dropped": len(read) - len(kept)}


def _read_csv(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sum_by_country(ledger: str) -> dict[str, float]:
    """Return the revenue of each country, refunds taken off, the largest first."""
    rows = _query(
        ledger,
        "SELECT country, ROUND(SUM(amount), 2) AS revenue FROM orders "
        "JOIN customers ON customers.id = orders.customer GROUP BY country ORDER BY revenue DESC",
    )
    return dict(rows)


def find_best_customers(ledger: str, limit: int = 5) -> list[str]:
    """Return the names of the customers who spent most."""
    rows = _query(
        ledger,
        "SELECT name FROM orders JOIN customers ON customers.id = orders.customer "
        "GROUP BY name ORDER BY SUM(amount) DESC, name LIMIT ?",
        limit,
    )
    return [name for (name,) in rows]


def sum_refunds(ledger: str) -> float:
    """Return what was paid back."""
    ((total,),) = _query(ledger, "SELECT ROUND(-SUM(MIN(amount, 0)), 2) FROM orders")
    return total or 0.0


def _query(ledger: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(ledger)) as connection:
        return connection.execute(sql, values).fetchall()


def write_report(
    title: str,
    dropped: int,
    revenue: dict[str, float],
    best: list[str],
    refunds: float,
    path: str,
) -> str:
    """Write the report as Markdown, and return its file."""
    lines = [f"# {title}", "", "| country | revenue |", "|---|---:|"]
    lines += [f"| {country} | {amount:,.2f} |" for country, amount in revenue.items()]
    lines += [f"| **all** | **{sum(revenue.values()):,.2f}** |", ""]
    lines += [f"Refunds: {refunds:,.2f}. Orders without an amount: {dropped}.", ""]
    lines += [f"Best customers: {', '.join(best)}."]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pack(files: list[str], archive: str) -> str:
    """Pack files into a zip archive, and return it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(file, Path(file).name)
    return archive
