"""The dashboard and the alerts ask for metrics that the processes really have."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.conftest import Profile
from tests.end_to_end.test_orders_ws import market_order
from tests.end_to_end.test_trading_matcher import ASK, calm, new_trader, touch_is
from tests.running import ANSWER_S, ROOT

pytestmark = pytest.mark.timeout(180)

WORDS = {
    "sum", "max", "count", "rate", "increase", "histogram_quantile", "vector", "absent", "or", "by",
}  # fmt: skip
OF_PROMETHEUS = {"up"}
OF_TARGETS = {"job", "instance", "role"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "simple-router.json").read_text())
    return found


def expressions() -> Iterator[str]:
    """Yield every PromQL expression of the dashboard and the alerts."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for group in yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)', " ", re.sub(r'"[^"]*"', "", expression))
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - WORDS


def labels_in(expression: str) -> set[str]:
    """Return the labels that an expression chooses or sums by."""
    chosen = re.findall(r'(\w+)=~?"', expression)
    summed = re.findall(r"by \(([^)]*)\)", expression)
    return {*chosen, *(label.strip() for labels in summed for label in labels.split(","))}


async def exported(router: Profile) -> dict[str, set[str]]:
    """Return all that the processes export: name → labels seen on it."""
    found: dict[str, set[str]] = {}
    async with httpx.AsyncClient(timeout=ANSWER_S) as http:
        for name, told in router.places.items():
            if name == "proxy":
                continue
            text = (await http.get(f"{told['url']}/metrics")).raise_for_status().text
            for family in text_string_to_metric_families(text):
                for suffix in SUFFIXES.get(family.type, ("",)):
                    found.setdefault(family.name + suffix, set())
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_asked_for_is_exported(router: Profile, market: Any) -> None:
    calm(market)
    trader = await new_trader(router)
    await touch_is(router, trader.token, ASK)
    (await trader.rest("POST", "/orders", market_order())).raise_for_status()
    found = await exported(router)
    asked = list(expressions())
    assert len(asked) > 40
    for expression in asked:
        names = names_in(expression) - OF_PROMETHEUS
        assert names <= set(found), f"{names - set(found)} in {expression}"
        for name in names:
            labels = labels_in(expression) - OF_TARGETS
            assert not found[name] or len(names) > 1 or labels <= found[name], f"{expression}: {found[name]}"


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_of_ours_is_in_the_docs(router: Profile) -> None:
    docs = (ROOT / "docs" / "operations.md").read_text()
    ours = {name for name in await exported(router) if not name.startswith(("python_", "process_"))}
    told = {name for name in ours if not name.endswith(("_created", "_bucket", "_sum", "_count"))}
    assert len(told) > 15
    assert {name for name in told if f"`{name}" not in docs} == set()


def test_a_made_up_name_would_be_found() -> None:
    assert names_in('sum by (x) (rate(made_up_total{y="z"}[1m])) or vector(0)') == {"made_up_total"}
    assert names_in('up{job="router"} == 0') == {"up"}
    assert labels_in('max by (a, b) (m{c="1", d=~"2.."})') == {"a", "b", "c", "d"}


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
