"""Who is logged in in which browser, so that a reload of the page does not log out.

The browser keeps an id of chance in a cookie that ends with it; the credentials stay here, in memory.
"""

import secrets
import threading
from collections import OrderedDict

from router_client.flows import Session

COOKIE = "simple_router_visit"
ID_BYTES = 24
KEPT_S = 12 * 3600.0  # since the page was last opened
VISITS_MAX = 1_000  # the oldest is forgotten for a new one


class Visits:
    """The sessions by id; `now` in monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[float, Session]] = OrderedDict()

    def remember(self, session: Session, now: float) -> str:
        """Keep a session; return its id."""
        visit = secrets.token_urlsafe(ID_BYTES)
        with self._lock:
            self._seen[visit] = (now, session)
            while len(self._seen) > VISITS_MAX:
                self._seen.popitem(last=False)
        return visit

    def find(self, visit: str | None, now: float) -> Session | None:
        """Return the session of an id, None where it is unknown or too old."""
        with self._lock:
            seen_at, session = self._seen.get(visit or "", (0.0, None))
            if session is None or visit is None:
                return None
            if now - seen_at > KEPT_S:
                del self._seen[visit]
                return None
            self._seen[visit] = (now, session)
            self._seen.move_to_end(visit)
            return session

    def forget(self, session: Session) -> None:
        """Forget a session under all its ids."""
        with self._lock:
            for visit in [visit for visit, (_, kept) in self._seen.items() if kept is session]:
                del self._seen[visit]


def script(visit: str) -> str:
    """Return what makes the browser keep an id."""
    return f"<script>document.cookie = '{COOKIE}={visit}; path=/; SameSite=Strict'</script>"
