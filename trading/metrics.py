"""The exchange in Prometheus' words."""

from prometheus_client import Counter, Gauge, Histogram

ORDERS_OPEN = Gauge("orders_open", "Resting limit orders in the matcher's index")
FILLS = Counter("fills", "Executions written by this process", ["liquidity"])
SETTLE_SECONDS = Histogram(
    "matcher_settle_seconds",
    "From the touch that crossed a resting order to the commit of its fill",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
TWAPS_RUNNING = Gauge("twaps_running", "TWAP orders whose slices this process runs")
SLICE_LATE_SECONDS = Histogram(
    "twap_slice_late_seconds",
    "From the moment that a slice is due to the moment that it is given to the exchange",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
LEADER = Gauge("matcher_leader", "1 for an instrument that this process's matcher leads", ["instrument"])
VIOLATIONS = Counter("ledger_invariant_violations", "What the audit of the ledger found; anything but 0 is a fault")
