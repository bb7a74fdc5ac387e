"""The functions of invoices.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def list_customers(count: int, wrong: int) -> list[dict[str, Any]]:
    """Return customers, some of whom have no address."""
    return [
        {
            "name": f"Customer {number}",
            "address": f"{number} Main Street" if number > wrong else "",
            "amount": 10 * number,
        }
        for number in range(1, count + 1)
    ]


def write_invoice(customer: dict[str, Any], folder: str) -> str:
    """Write an invoice, and return where."""
    if not customer["address"]:
        raise ValueError(f"{customer['name']} has no address")
    file = Path(folder, f"{customer['name'].replace(' ', '-').lower()}.txt")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"{customer['name']}\n{customer['address']}\n\n{customer['amount']} €\n", "utf-8"
    )
    return str(file)


def mail(outcomes: list[dict[str, Any]]) -> str:
    """Return what is sent: how many invoices went out, and who got none."""
    missing = [outcome["key"] for outcome in outcomes if outcome["status"] == "failed"]
    sent = sum(outcome["status"] == "finished" for outcome in outcomes)
    return f"{sent} invoices; none for {', '.join(missing) or 'nobody'}"
