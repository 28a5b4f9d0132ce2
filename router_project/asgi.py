"""The ASGI application: guarded HTTP by Django, WebSockets by Channels' consumers."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "router_project.settings")
http = get_asgi_application()  # before anything that imports models

from router_project.guard import Guard  # noqa: E402
from router_project.hot import HotRoutes  # noqa: E402
from router_project.origin import OriginChecked  # noqa: E402
from router_project.requests import Requests  # noqa: E402
from router_project.routing import websockets  # noqa: E402
from router_project.throttle import Throttle  # noqa: E402

application = Requests(
    Guard(Throttle(HotRoutes(ProtocolTypeRouter({"http": http, "websocket": OriginChecked(websockets)}))))
)
