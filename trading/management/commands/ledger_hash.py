"""Prints the hash of the ledger: every account, balance, order, fill, entry and report."""

from typing import Any

from django.core.management.base import BaseCommand

from trading import fingerprint


class Command(BaseCommand):
    help = "Print one hash over every row of the ledger: the same rows have the same on SQLite and on PostgreSQL."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(fingerprint.ledger_hash())
