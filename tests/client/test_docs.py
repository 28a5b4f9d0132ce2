"""docs/client.md shows every call, and only calls that there are."""

import inspect
import re

import pytest
from router_client import APIClient, AsyncAPIClient, cli, errors
from router_client.async_client import SocketOrders

from tests.running import ROOT

TEXT = (ROOT / "docs" / "client.md").read_text()


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(public(APIClient) - {"close"}))
def test_every_call_is_shown(name: str) -> None:
    assert re.search(rf"client\.{name}\b", TEXT)


@pytest.mark.parametrize("name", sorted(public(SocketOrders)))
def test_every_call_over_the_socket_is_shown(name: str) -> None:
    assert re.search(rf"client\.ws\.{name}\b", TEXT)


def test_what_is_shown_is_there() -> None:
    assert set(re.findall(r"client\.ws\.(\w+)", TEXT)) == public(SocketOrders)
    instance_attributes = {"session", "ws"}
    shown = set(re.findall(r"(?<![\w.])client\.(\w+)", TEXT)) - instance_attributes
    assert shown <= public(APIClient)


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    same = public(APIClient) - {"close"}
    assert public(AsyncAPIClient) - {"aclose", "run"} == same
    for name in same - {"rate_limit"}:
        one, other = (inspect.signature(getattr(kind, name)) for kind in (APIClient, AsyncAPIClient))
        assert list(one.parameters.values()) == list(other.parameters.values()), name


def test_every_error_is_told() -> None:
    kinds = [
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.RouterError) and kind.__module__ == errors.__name__
    ]
    assert kinds
    assert [name for name in kinds if f"`{name}" not in TEXT] == []


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_every_command_is_shown(name: str) -> None:
    assert re.search(rf"router (-o json )?{name}\b", TEXT)
