"""Every route. A trailing slash is tolerated everywhere (router_project/middleware.py)."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("accounts.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "router_project.errors.bad_request"
handler403 = "router_project.errors.permission_denied"
handler404 = "router_project.errors.not_found"
handler500 = "router_project.errors.server_error"
