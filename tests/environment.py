"""The environment of the tests, set before Django reads it: nothing of the developer's own settings enters."""

import os
import tempfile

from tests.services import POSTGRES_URL

for name in ("REDIS_URL", "SYMBOLS", "VENUES", "DEBUG", "ALLOWED_HOSTS", "CORS_ORIGINS", "HOST", "PORT"):
    os.environ.pop(name, None)
os.environ["ENV_FILE"] = os.devnull
os.environ["MARKET_SOURCE"] = "simulated"
os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50
os.environ["WS_ANONYMOUS_MARKET_DATA"] = "false"
os.environ["RATE_LIMITS"] = "off"
if os.environ.get("TEST_DATABASE") == "postgres":
    os.environ["DATABASE_URL"] = POSTGRES_URL
else:
    os.environ["DATABASE_URL"] = f"sqlite:///{tempfile.mkdtemp(prefix='router-tests-')}/router.sqlite3"
