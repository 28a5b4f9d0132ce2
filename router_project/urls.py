"""Every route. A trailing slash is tolerated everywhere (router_project/middleware.py)."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

from accounts.forms import AdminLoginForm, LoginForm
from router_project import openapi, views

session = [
    path(
        "login",
        LoginView.as_view(template_name="rest_framework/login.html", authentication_form=LoginForm),
        name="login",
    ),
    path("logout", LogoutView.as_view(), name="logout"),
]

# Pages only: their renderers write no errors, and no OPTIONS.
swagger = require_safe(SpectacularSwaggerSplitView.as_view(url_name="schema"))
redoc = require_safe(SpectacularRedocView.as_view(url_name="schema", template_name="router_project/redoc.html"))

admin.site.login_form = AdminLoginForm
admin.site.site_header = admin.site.site_title = "Simple Router"

urlpatterns = [
    path("", views.home, name="home"),
    path("", include("accounts.urls")),
    path("", include("marketdata.urls")),
    path("", include("trading.urls")),
    path("health", views.HealthView.as_view(), name="health"),
    path("ready", views.ReadyView.as_view(), name="ready"),
    path("openapi.json", openapi.schema, name="schema"),
    path("docs", swagger, name="docs"),
    path("redoc", redoc, name="redoc"),
    path("asyncapi.json", views.asyncapi, name="asyncapi"),
    path("ws-docs", views.socket_docs, name="socket-docs"),
    path("session/", include((session, "rest_framework"))),
    path("admin/", admin.site.urls),
]

handler400 = "router_project.errors.bad_request"
handler403 = "router_project.errors.permission_denied"
handler404 = "router_project.errors.not_found"
handler500 = "router_project.errors.server_error"
