from django.urls import path

from accounts.views import KeysView, KeyView, LoginView, RefreshView, RegisterView

urlpatterns = [
    path("register", RegisterView.as_view(), name="register"),
    path("login", LoginView.as_view(), name="login"),
    path("auth/register", RegisterView.as_view()),
    path("auth/login", LoginView.as_view()),
    path("api-keys", KeysView.as_view(), name="api-keys"),
    path("api-keys/<int:key_id>", KeyView.as_view(), name="api-key"),
    path("token/refresh", RefreshView.as_view(), name="token-refresh"),
]
