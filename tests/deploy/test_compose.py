"""compose.yaml, Dockerfile and nginx.conf say only what the router understands, and agree with each other.

No image is built here: that needs an engine. What the image would hold is put together from the
Dockerfile's own lines, and runs.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from router_project.management.commands import run_router
from tests.deploy.conftest import SBIN, require_nginx
from tests.running import ROOT

ROUTER_SERVICES = ("migrate", "feeds", "matcher", "standby", "web1", "web2")
GIVEN = {"SECRET_KEY": "k" * 48, "POSTGRES_PASSWORD": "p4ss", "ALLOWED_HOSTS": "router.example.com"}
UNITS_S = {"s": 1, "m": 60}

Service = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = compose["services"]
    return found


def filled(text: str, given: Mapping[str, str]) -> str:
    """Fill in ${NAME}, ${NAME:-default} and ${NAME:?complaint}, as compose does."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if given.get(name):
            return given[name]
        if kind == ":?":
            raise LookupError(name)
        return rest if kind == ":-" else ""

    return re.sub(r"\$\{(\w+)(:[-?])?([^}]*)\}", value, text)


def environment_of(service: Service, given: Mapping[str, str] = GIVEN) -> dict[str, str]:
    return {name: filled(text, given) for name, text in service["environment"].items()}


def address_of(service: Service) -> str:
    return str(service["networks"]["inside"]["ipv4_address"])


def seconds(text: str) -> int:
    return int(text[:-1]) * UNITS_S[text[-1]]


class Asked(dict[str, str]):
    """An environment that remembers which names were asked for."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


@pytest.fixture
def settings_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the variables that the settings ask for."""
    asked = Asked(os.environ)
    monkeypatch.setattr(os, "environ", asked)
    runpy.run_path(str(ROOT / "router_project" / "settings.py"))
    assert len(asked.names) > 20
    return set(asked.names)


def test_every_variable_named_is_one_that_the_router_reads(
    services: dict[str, Service], settings_read: set[str]
) -> None:
    for name in ROUTER_SERVICES:
        assert set(services[name]["environment"]) <= settings_read, name


def test_every_variable_that_the_router_reads_is_in_the_docs(settings_read: set[str]) -> None:
    table = (ROOT / "docs" / "operations.md").read_text()
    inside = {"ROUTER_SOURCE_REQUESTED"}  # from one of our processes to the next
    missing = {name for name in settings_read - inside if f"`{name}`" not in table}
    assert missing == set()


def test_the_settings_take_these_environments_and_nothing_starts_without_a_key(services: dict[str, Service]) -> None:
    for name in ROUTER_SERVICES:
        environment = environment_of(services[name])
        assert environment["LOG_FORMAT"] == "json"
        assert environment["MARKET_SOURCE"] == "live"
        for key, good in (("k" * 48, True), ("", False)):
            clean = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, **environment, "SECRET_KEY": key}
            checked = subprocess.run(
                [sys.executable, "manage.py", "check"], cwd=ROOT, env=clean, capture_output=True, text=True
            )
            assert (checked.returncode == 0) == good, checked.stderr
        for missing in ("SECRET_KEY", "POSTGRES_PASSWORD"):
            with pytest.raises(LookupError, match=missing):
                environment_of(services[name], {**GIVEN, missing: ""})
        break  # they share one environment, as the next line says
    assert all(services[name]["environment"] == services["web1"]["environment"] for name in ROUTER_SERVICES)


def test_every_command_is_one_and_every_role_runs(services: dict[str, Service]) -> None:
    parser = run_router.Command().create_parser("manage.py", "run_router")
    running: list[str] = []
    for name in ROUTER_SERVICES:
        command, *arguments = services[name]["command"]
        if command == "migrate":
            continue
        assert command == "run_router"
        options = parser.parse_args(arguments)
        assert options.no_migrate, "tables change once, before"
        running += run_router._choices(options.roles, run_router.ROLES, "role")
    assert sorted(running) == ["feeds", "matcher", "matcher", "web", "web"]


def test_tables_are_up_to_date_before_anything_runs(services: dict[str, Service]) -> None:
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["restart"] == "no"
    for name in set(ROUTER_SERVICES) - {"migrate"}:
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert services[name]["restart"] == "unless-stopped"


def test_the_proxy_knows_the_web_processes_and_they_know_the_proxy(services: dict[str, Service]) -> None:
    proxy, webs = services["proxy"], [services["web1"], services["web2"]]
    port = webs[0]["environment"]["PORT"]
    asked = re.findall(r"server (\S+)", proxy["environment"]["PROXY_SERVERS"])
    assert asked == [f"{address_of(web)}:{port}" for web in webs]
    assert [port.rpartition(":")[2] for port in proxy["ports"]] == [proxy["environment"]["PROXY_LISTEN"]]
    assert f":{proxy['environment']['PROXY_LISTEN']}/" in proxy["healthcheck"]["test"][-1]
    for web in webs:
        environment = environment_of(web)
        assert environment["TRUSTED_PROXIES"] == address_of(proxy)
        assert {"web1", "web2", "127.0.0.1", "router.example.com"} <= set(environment["ALLOWED_HOSTS"].split(","))


def test_the_proxys_file_wants_nothing_else_than_it_is_given(services: dict[str, Service]) -> None:
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    given = {name for name in services["proxy"]["environment"] if name.startswith("PROXY_")}
    assert set(re.findall(r"\$\{(\w+)\}", conf)) == given
    assert services["proxy"]["volumes"] == ["./deploy/nginx.conf:/etc/nginx/templates/nginx.conf.template:ro"]
    idle_s = re.search(r"upstream web \{.*?keepalive_timeout (\d+)s;", conf, re.DOTALL)
    assert idle_s is not None
    drain_s = float(services["web1"]["environment"]["DRAIN_S"])
    assert int(idle_s[1]) < drain_s, "who stops waits longer than the proxy keeps connections"
    assert run_router.STOP_TIMEOUT_S + drain_s < seconds(services["web1"]["stop_grace_period"])


def test_nginx_takes_the_file_as_compose_fills_it_in(services: dict[str, Service], tmp_path: Path) -> None:
    require_nginx()
    values = {**services["proxy"]["environment"], "PROXY_RUN": str(tmp_path)}
    conf = tmp_path / "nginx.conf"
    conf.write_text(Template((ROOT / "deploy" / "nginx.conf").read_text()).safe_substitute(values))
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:{SBIN}")
    assert nginx is not None
    command = [nginx, "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(conf)]
    tested = subprocess.run(command, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


def test_prometheus_asks_every_process_where_it_answers(services: dict[str, Service]) -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    asked = {target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}
    wanted = set()
    for name in set(ROUTER_SERVICES) - {"migrate"}:
        environment = services[name]["environment"]
        wanted.add(f"{name}:{environment['PORT' if name.startswith('web') else 'STATE_PORT']}")
    assert asked == wanted


def test_images_are_pinned_and_run_without_privileges(compose: dict[str, Any], services: dict[str, Service]) -> None:
    pinned = re.compile(r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$")
    stages = [line for line in _dockerfile() if line.startswith("FROM")]
    images = [line.split()[1] for line in stages] + [service["image"] for service in services.values()]
    assert all(pinned.search(image.replace("-slim-", "-")) for image in images), images
    assert len(stages) == 2
    assert "USER router" in _dockerfile()
    for name in (*ROUTER_SERVICES, "proxy"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["read_only"]
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    named = {volume for volume in mounted if not volume.startswith("./")}
    assert named == set(compose["volumes"])
    assert all((ROOT / volume).exists() for volume in mounted - named), mounted


def test_the_image_would_hold_what_the_router_needs(tmp_path: Path) -> None:
    """Put the image's folder together by the Dockerfile's lines and make tables from there."""
    for source, target in _copied():
        place = tmp_path / target
        for file in _sent(ROOT / source):
            to = place / file.relative_to(ROOT / source) if (ROOT / source).is_dir() else place / file.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
    environment = {
        "PATH": os.environ["PATH"],
        "ENV_FILE": os.devnull,
        "DATABASE_URL": f"sqlite:///{tmp_path}/router.sqlite3",
        "MARKET_SOURCE": "simulated",
    }
    script = (
        "import sys; sys.argv = ['manage.py', 'migrate', '-v', '0']; import manage; manage.main();"
        "import router_project.asgi, router_project.management.commands.run_router as found; print(found.__file__)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().startswith(str(tmp_path))


def _dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def _copied() -> Iterator[tuple[str, str]]:
    """Yield what the last stage copies from the build context."""
    for line in _dockerfile():
        if line.startswith("COPY") and "--from" not in line and "/tmp/" not in line:
            _, source, target = line.split()
            yield source, target


def _sent(source: Path) -> Iterator[Path]:
    """Yield the files that .dockerignore lets through."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    for file in [source] if source.is_file() else source.rglob("*"):
        name = file.relative_to(ROOT)
        if file.is_file():
            sent = True
            for rule in rules:
                pattern = rule.lstrip("!")
                hit = pattern == "*" or name.parts[0] == pattern or any(
                    fnmatch(part, pattern.removeprefix("**/")) for part in name.parts if pattern.startswith("**/")
                )  # fmt: skip
                sent = rule.startswith("!") if hit else sent
            if sent:
                yield file
