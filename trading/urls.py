from django.urls import path

from trading import views

urlpatterns = [
    path("deposit", views.DepositView.as_view(), name="deposit"),
    path("balance", views.BalanceView.as_view(), name="balance"),
    path("orders", views.OrdersView.as_view(), name="orders"),
    path("orders/twap", views.TwapView.as_view(), name="twap"),
    path("orders/<str:token>", views.OrderView.as_view(), name="order"),
    path("fills", views.FillsView.as_view(), name="fills"),
    path("ledger", views.LedgerView.as_view(), name="ledger"),
    path("account/reset", views.ResetView.as_view(), name="account-reset"),
]
