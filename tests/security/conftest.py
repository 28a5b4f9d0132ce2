"""What these tests share with those of trading and of running routers."""

from tests.end_to_end.conftest import market, profile, router  # noqa: F401 - fixtures are known by their names
from tests.trading.conftest import alice, desk  # noqa: F401
