"""Proves the ledger: every balance, hold, order, fill and report, from the rows alone."""

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from trading import audit
from trading.models import Account


class Command(BaseCommand):
    help = "Check that every balance, hold, order, fill and report follows from what was written down; exit 1 if not."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--account", metavar="NAME", help="check one user's account only")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["account"]
        accounts = Account.objects.all()
        if name is not None:
            accounts = accounts.filter(user__username__iexact=name)
            if not accounts:
                raise CommandError(f"no user {name!r} has an account on the exchange")
        findings = audit.verify([account.pk for account in accounts] if name is not None else None)
        for finding in findings:
            self.stdout.write(self.style.ERROR(str(finding)))
        checked = f"{accounts.count()} account{'s' * (accounts.count() != 1)} checked"
        if findings:
            self.stdout.write(self.style.ERROR(f"{checked}: {len(findings)} things are wrong"))
            sys.exit(1)
        self.stdout.write(self.style.SUCCESS(f"{checked}: balances, holds, orders, fills and reports all agree"))
