"""The sockets of clients by path."""

from django.urls import re_path

from gateway.consumers import BooksSocket, ClientSocket, UnknownSocket

websocket_urlpatterns = [
    re_path(r"^ws/?$", ClientSocket.as_asgi()),
    re_path(r"^ws/orderbook/?$", BooksSocket.as_asgi()),
    re_path(r"^ws/orderbook/(?P<exchange>[^/]{1,32})/?$", BooksSocket.as_asgi()),
    re_path(r"", UnknownSocket.as_asgi()),
]
