"""What market data leaves behind: closed candles, and which market this database belongs to."""

from django.db import models

PRICE_TEXT_LENGTH = 64


class Market(models.Model):
    """The one market that this database's orders and candles belong to."""

    SINGLETON = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=SINGLETON)
    source = models.CharField(max_length=16)  # "live" or "simulated"
    chosen_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="market_is_one")]

    def __str__(self) -> str:
        return self.source


class StoredCandle(models.Model):
    """A closed candle of one venue, or of all of them (`venue` "all"), over trades only.

    Prices are integer units of 10^-8; the volume is exact decimal text, because a sum of
    sizes may exceed an integer column.
    """

    venue = models.CharField(max_length=16)
    instrument = models.CharField(max_length=33)
    interval = models.PositiveIntegerField(help_text="seconds")
    open_time = models.BigIntegerField(help_text="seconds since the epoch")
    open = models.BigIntegerField()
    high = models.BigIntegerField()
    low = models.BigIntegerField()
    close = models.BigIntegerField()
    volume = models.CharField(max_length=PRICE_TEXT_LENGTH)
    trades = models.PositiveIntegerField()
    partial = models.BooleanField(default=False, help_text="the router did not see all of the interval")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instrument", "venue", "interval", "open_time"], name="one_candle_each"),
            models.CheckConstraint(
                condition=models.Q(low__gt=0)
                & models.Q(low__lte=models.F("open"))
                & models.Q(low__lte=models.F("close"))
                & models.Q(high__gte=models.F("open"))
                & models.Q(high__gte=models.F("close")),
                name="candle_is_ordered",
            ),
        ]
        indexes = [models.Index(fields=["interval", "open_time"], name="candle_age")]

    def __str__(self) -> str:
        return f"{self.venue} {self.instrument} {self.interval}s {self.open_time}"
