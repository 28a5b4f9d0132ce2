"""PostgreSQL and Redis for the tests: where they are, and whether they answer.

`python -m tests.services postgres` ends with 0 when it answers and 75 when it does not; with
REQUIRE_SERVICES=1, as in CI, a service that does not answer is a failure.
"""

import os
import sys

import psycopg
import pytest
import redis

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
REQUIRED = os.environ.get("REQUIRE_SERVICES") == "1"


def missing(service: str) -> str | None:
    """Return why a service cannot be used, None when it can."""
    try:
        if service == "postgres":
            psycopg.connect(POSTGRES_URL, connect_timeout=10).close()
        else:
            redis.Redis.from_url(REDIS_URL, socket_connect_timeout=10).ping()
    except (psycopg.Error, redis.RedisError) as error:
        return f"{service} does not answer ({str(error).splitlines()[0]})"
    return None


def require(service: str) -> None:
    """Skip the test, with the reason, where a service is missing; where it must be there, fail."""
    if (reason := missing(service)) is not None:
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


if __name__ == "__main__":
    reason = missing(sys.argv[1])
    if reason:
        print(f"not tested against it: {reason}", file=sys.stderr)
        sys.exit(1 if REQUIRED else 75)
