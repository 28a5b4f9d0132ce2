"""Django's settings, from the environment or `.env`; docs/operations.md lists the variables."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from corsheaders.defaults import default_headers

from core.instruments import Catalogue
from core.orders import SIMPLE_TYPES, OrderType
from marketdata.venues import VENUES as SHIPPED_VENUES
from router_project import logs
from router_project.environment import (
    Environment,
    check_origins,
    check_url,
    database,
    derived_key,
    secret_key,
)

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = BASE_DIR / "data"
VERSION = "1.0.0"

env = Environment.load(Path(os.environ.get("ENV_FILE", BASE_DIR / ".env")))

# -- where we serve

HOST = env.text("HOST", "127.0.0.1")
PORT = env.integer("PORT", 8000, least=0, most=65_535)  # 0: any free port
STATE_PORT = env.integer("STATE_PORT", 0, least=0, most=65_535)  # of a process without the web role; 0: none
# How long a web process that stops takes requests on idle connections: a proxy may just be using one.
DRAIN_S = float(env.decimal("DRAIN_S", "0", least="0", most="60"))
HTTPS = env.flag("HTTPS", default=False)  # what stands in front ends TLS, and lets nobody in without it
DEBUG = env.flag("DEBUG", default=False)
ALLOWED_HOSTS = list(env.words("ALLOWED_HOSTS")) or list(dict.fromkeys(("localhost", "127.0.0.1", "[::1]", HOST)))
CORS_ALLOWED_ORIGINS = env.parsed("CORS_ORIGINS", "", check_origins)
CORS_ALLOW_HEADERS = [*default_headers, "x-api-key", "x-request-id", "x-token-id"]
CORS_EXPOSE_HEADERS = [
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
]
CSRF_TRUSTED_ORIGINS = CORS_ALLOWED_ORIGINS

# -- the market

DEFAULT_SYMBOLS = "BTC-USDT,ETH-USDT,SOL-USDT,XRP-USDT,DOGE-USDT,ADA-USDT,LTC-USDT,LINK-USDT,AVAX-USDT,DOT-USDT"


def _venues(names: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.lower() for name in names))
    unknown = [name for name in names if name not in SHIPPED_VENUES]
    if unknown or not names:
        raise ValueError(f"unknown venue {', '.join(unknown)}; choose from {', '.join(SHIPPED_VENUES)}")
    return names


CATALOGUE = env.parsed("SYMBOLS", DEFAULT_SYMBOLS, Catalogue)
VENUES = env.parsed("VENUES", ",".join(SHIPPED_VENUES), _venues)
VENUE_URLS = {name: env.url(f"{name.upper()}_WS_URL", SHIPPED_VENUES[name].url, ("wss", "ws")) for name in VENUES}
VENUE_STALE_AFTER_S = float(env.decimal("VENUE_STALE_AFTER_S", "5", least="0.5", most="3600"))
MARKET_SOURCE = env.choice("MARKET_SOURCE", "auto", ("auto", "live", "simulated"))
MARKET_SOURCE_REQUESTED = env.choice("ROUTER_SOURCE_REQUESTED", MARKET_SOURCE, ("auto", "live", "simulated"))
SIMULATED_SEED = env.integer("SIMULATED_SEED", 1, least=0, most=2**63 - 1)
SIMULATED_RATE = float(env.decimal("SIMULATED_RATE", "1", least="0.01", most="1000"))
WS_ANONYMOUS_MARKET_DATA = env.flag("WS_ANONYMOUS_MARKET_DATA", default=False)

# -- trading

MAKER_FEE_BPS = env.decimal("MAKER_FEE_BPS", "0", least="0", most="1000")
TAKER_FEE_BPS = env.decimal("TAKER_FEE_BPS", "0", least="0", most="1000")
TWAP_COLLAR_BPS = env.decimal("TWAP_COLLAR_BPS", "500", least="0", most="10000")

# -- limits, by tier

RATE_LIMITS = env.flag("RATE_LIMITS", default=True)
TIERS = ("ANONYMOUS", "BASIC", "PREMIUM")


def _by_tier(name: str, default: str) -> dict[str, int]:
    return dict(zip(TIERS, env.parsed(name, default, _three_numbers), strict=True))


def _three_numbers(words: tuple[str, ...]) -> list[int]:
    if len(words) != len(TIERS) or not all(
        word.isascii() and word.isdigit() and 0 < int(word) < 10**9 for word in words
    ):
        raise ValueError(f"write three different numbers, for {', '.join(TIERS)}")
    return [int(word) for word in words]


RATE_REQUESTS_A_MINUTE = _by_tier("RATE_REQUESTS_A_MINUTE", "600,6000,60000")
RATE_ORDER_ACTIONS_A_SECOND = _by_tier("RATE_ORDER_ACTIONS_A_SECOND", "5,50,500")
RATE_SOCKETS = _by_tier("RATE_SOCKETS", "5,20,200")
RATE_SUBSCRIPTIONS = _by_tier("RATE_SUBSCRIPTIONS", "50,500,5000")
TRUSTED_PROXIES = frozenset(env.words("TRUSTED_PROXIES"))  # addresses whose X-Forwarded-For counts

# -- what we keep, and where

# A simulated price must never fill an order of the live market: each market has its own database.
_default_database = "simulated" if MARKET_SOURCE == "simulated" else "router"
DATABASE_URL = env.text("DATABASE_URL", f"sqlite:///data/{_default_database}.sqlite3")
DATABASES = {"default": database(DATABASE_URL, BASE_DIR)}
PRODUCTION = DATABASES["default"]["ENGINE"] != "django.db.backends.sqlite3"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

RECORDING = env.text("RECORDING")  # a folder; none: nothing is recorded

REDIS_URLS = list(env.words("REDIS_URL"))
for _url in REDIS_URLS:
    check_url("REDIS_URL", _url, ("redis", "rediss", "unix"))
CHANNEL_PREFIX = env.text("CHANNEL_PREFIX", "router")  # keeps several routers on one Redis apart
CHANNEL_CAPACITY = 2_000  # batches waiting in a process that is busy: some seconds of the whole market
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": REDIS_URLS, "prefix": CHANNEL_PREFIX},
    }
    if REDIS_URLS
    else {"BACKEND": "marketdata.layer.InProcessLayer", "CONFIG": {"capacity": CHANNEL_CAPACITY}}
}

# -- the project

INSTALLED_APPS = [
    "daphne",  # runserver; the public server is uvicorn
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "router_project",
    "accounts",
    "marketdata",
    "trading",
]

MIDDLEWARE = [
    "router_project.middleware.AccountNamed",
    "django.middleware.security.SecurityMiddleware",
    "router_project.middleware.BrowserRules",
    "router_project.errors.JsonErrors",
    "router_project.middleware.TrailingSlash",
    "router_project.middleware.StaticFiles",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "router_project.urls"
ASGI_APPLICATION = "router_project.asgi.application"
APPEND_SLASH = False  # a redirect would lose a POST's body; the slash is tolerated instead
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "router_project" / "templates"],  # before those of the packages that they replace
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # no collectstatic: the packages' own files are served, found once at start
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False

# -- security

SECRET_KEY = secret_key(env.text("SECRET_KEY"), production=PRODUCTION, kept_in=DATA_DIR / "secret_key")
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for all subdomains, and
    "security.W021",  # for ever in browsers' lists: the domain's owner decides, not one of its hosts
    "security.W008",  # a redirect to HTTPS is the proxy's: here it would lose a POST's body and turn probes away
]
CSRF_FAILURE_VIEW = "router_project.errors.csrf_failure"

# -- accounts

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = ["router_project.passwords.Argon2"]
LOGIN_URL = "rest_framework:login"
LOGIN_REDIRECT_URL = "/"
ACCESS_TOKEN_MINUTES = env.integer("ACCESS_TOKEN_MINUTES", 720, least=1, most=525_600)
REFRESH_TOKEN_DAYS = 30
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": derived_key(SECRET_KEY, "access tokens"),
    "ISSUER": "simple-router",
    "AUDIENCE": "simple-router",
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=ACCESS_TOKEN_MINUTES),
    "REFRESH_TOKEN_LIFETIME": max(timedelta(days=REFRESH_TOKEN_DAYS), timedelta(minutes=ACCESS_TOKEN_MINUTES)),
}

# -- REST

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.BearerAuthentication",
        "accounts.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": ["router_project.rest.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "router_project.rest.ExactJSONRenderer",
        "router_project.rest.RawJSONBrowsableRenderer",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "router_project.errors.exception_handler",
    "URL_FORMAT_OVERRIDE": None,  # ?format= belongs to the routes
    "UNICODE_JSON": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Simple Router",
    "DESCRIPTION": (
        "Routes real-time spot market data of several venues and trades on paper against it.\n\n"
        "Log in (`POST /register`, `POST /login`), press **Authorize** and paste the `access_token`. "
        "Numbers are exact JSON numbers. The WebSocket is described at [/ws-docs](/ws-docs)."
    ),
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "REDOC_UI_SETTINGS": {
        "theme": {"typography": {"fontFamily": "system-ui", "headings": {"fontFamily": "system-ui"}}}
    },
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": True, "displayRequestDuration": True},
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": False,
    "ENUM_NAME_OVERRIDES": {
        "OrderTypeEnum": [kind.value for kind in OrderType],
        "PlacedTypeEnum": [kind.value for kind in SIMPLE_TYPES],
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "router_project.openapi.describe_errors",
        "router_project.openapi.describe_choices",
    ],
}

# -- logs

LOG_FORMAT = env.choice("LOG_FORMAT", "console", ("console", "json"))
LOG_REQUESTS = env.flag("LOG_REQUESTS", default=LOG_FORMAT == "json")  # a line for each request and each socket
LOG_LEVEL = env.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")).upper()
LOGGING = logs.configure(LOG_FORMAT, LOG_LEVEL)
