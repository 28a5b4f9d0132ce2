"""What is in the repository: no secret, no text that hides, no package with a known hole, settings fit for others."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from packaging.version import Version

from tests.running import ROOT

SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an API key of ours": re.compile(r"\bsr_[\w-]{40,}"),
    "a token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{40,}"),
    "a cloud's key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a forge's token": re.compile(r"\b(?:gh[pousr]_\w{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{20,})"),
    "a package index's token": re.compile(r"\bpypi-[\w-]{50,}"),
    "a named secret": re.compile(
        r"(?:secret|password|passwd|token|api_?key)\w*[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9_+/-]{32,}", re.IGNORECASE
    ),
    "a URL's password": re.compile(r"[a-z]+://[\w.-]+:(?!…|hunter2@|password@|p%40ss@|pass@)[^@\s/\"'{}$]{3,}@"),
}
SECRET_FILES = re.compile(
    r"(^|/)(\.env|secret_key|production\.env|id_[a-z0-9]+|.*\.(pem|key|p12|pfx|jks|sqlite3|dump))$"
)
# Characters that turn the direction of a text: what is read is not what runs.
HIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069]")

# The first releases without the holes that are known of, and why they would be ours.
SAFE = {
    "django": "5.2.14",  # CVE-2026-3902: X_API_Key taken for X-API-Key; CVE-2026-5766: bodies without a bound
    "djangorestframework": "3.17.2",  # CVE-2026-73229: GET without its permissions behind a refused write
    "djangorestframework-simplejwt": "5.5.1",  # CVE-2024-22513: tokens of disabled users
    "pyjwt": "2.13.0",  # CVE-2026-32597: critical extensions that it does not know; keys of one kind taken for another
    "cryptography": "46.0.7",  # CVE-2026-39892: beyond a buffer's end
    "daphne": "4.2.2",  # CVE-2026-44545: frames without a bound
}


def tracked() -> Iterator[tuple[str, str]]:
    """Yield every file that git keeps, with its text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name]
    assert len(names) > 200
    for name in names:
        path = ROOT / name
        if path.is_file():  # not deleted just now
            yield name, path.read_bytes().decode("utf-8", "replace")


def secrets_in(text: str) -> list[str]:
    return [what for what, pattern in SECRETS.items() if pattern.search(text)]


def test_no_file_holds_a_secret_or_text_that_hides() -> None:
    found = {}
    for name, text in tracked():
        problems = secrets_in(text) + ["hidden text"] * bool(HIDDEN.search(text))
        if SECRET_FILES.search(name):
            problems.append("a secret by its name")
        if problems:
            found[name] = problems
    assert found == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
        ("key sr_" + "aB3-_" * 9, "an API key of ours"),
        ("eyJhbGciOiJIUzI1NiJ9." + "eyJ1c2VyX2lkIjoxfQ." + "a" * 43, "a token"),
        ("AKIA" + "ABCDEFGH12345678", "a cloud's key"),
        ("ghp_" + "a1" * 18, "a forge's token"),
        ("SECRET_KEY=" + "aB3_" * 16, "a named secret"),
        ('"api_key": "' + "0123456789abcdef" * 2, "a named secret"),
        ("postgres://router:" + "Tr0ub4dor@db/router", "a URL's password"),
    ],
)
def test_the_scan_would_find_one(text: str, what: str) -> None:
    assert secrets_in(f"before\n{text}\nafter") == [what]


@pytest.mark.parametrize("name", [".env", "data/router.sqlite3", "deploy/production.env", "tls.key", "data/secret_key"])
def test_git_would_not_take_them(name: str) -> None:
    assert SECRET_FILES.search(name)
    if not name.endswith(".key"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("package", SAFE)
def test_no_package_has_a_hole_that_is_known_of(package: str) -> None:
    assert Version(version(package)) >= Version(SAFE[package])


def test_every_package_is_pinned_to_one_release() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "dashboard/requirements.txt"):
        for line in (ROOT / name).read_text().splitlines():
            wanted = line.partition("#")[0].partition(";")[0].strip()
            if wanted and not wanted.startswith("-"):
                assert re.fullmatch(r"[\w-]+(\[[\w,]+\])?==[\w.]+", wanted), f"{name}: {line}"


def checked_for_deployment(**variables: str) -> tuple[int, set[str]]:
    """Run Django's checks as in production; return the exit code and what they name."""
    environment = {
        "PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "MARKET_SOURCE": "live", "LOG_FORMAT": "json",
        "DATABASE_URL": "postgres://router:hunter2@127.0.0.1/router", "REDIS_URL": "redis://127.0.0.1:6379/0",
        "SECRET_KEY": "production-" + "".join(map(chr, range(48, 91))), "ALLOWED_HOSTS": "router.example.com",
        **variables,
    }  # fmt: skip
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    return ran.returncode, set(re.findall(r"\((\w+\.[EWC]\d+)\)", ran.stderr))


def test_production_settings_pass_the_checks_for_deployment() -> None:
    assert checked_for_deployment(HTTPS="true") == (0, set())


def test_the_checks_for_deployment_say_what_is_missing() -> None:
    code, named = checked_for_deployment(DEBUG="true")
    assert code == 1
    assert named == {"security.W004", "security.W012", "security.W016", "security.W018"}
    assert checked_for_deployment(HTTPS="true", SECRET_KEY="k" * 60) == (1, {"security.W009"})


def test_the_example_of_production_settings_holds_names_and_no_values() -> None:
    for line in (ROOT / "deploy" / "production.env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if re.search("KEY|PASSWORD", name) and not line.startswith("#"):
            assert value == "", name
