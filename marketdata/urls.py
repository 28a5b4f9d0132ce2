from django.urls import path

from marketdata import views

urlpatterns = [
    path("info", views.InfoView.as_view(), name="info"),
    path("exchanges", views.ExchangesView.as_view(), name="exchanges"),
    path("exchanges/<str:exchange>/pairs", views.PairsView.as_view(), name="pairs"),
    path("klines/<str:exchange>/<path:symbol>", views.KlinesView.as_view(), name="klines"),
    path("orderbook/<str:exchange>/<path:symbol>", views.OrderBookView.as_view(), name="orderbook"),
    path("status", views.StatusView.as_view(), name="status"),
    path("metrics", views.MetricsView.as_view(), name="metrics"),
]
