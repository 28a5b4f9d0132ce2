"""Which application answers which protocol."""

from channels.routing import URLRouter

from gateway.routing import websocket_urlpatterns

websockets = URLRouter(websocket_urlpatterns)
