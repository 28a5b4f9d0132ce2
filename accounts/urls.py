from django.urls import path

from accounts.views import LoginView, RefreshView, RegisterView

urlpatterns = [
    path("register", RegisterView.as_view(), name="register"),
    path("login", LoginView.as_view(), name="login"),
    path("auth/register", RegisterView.as_view()),
    path("auth/login", LoginView.as_view()),
    path("token/refresh", RefreshView.as_view(), name="token-refresh"),
]
