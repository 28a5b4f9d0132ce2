"""Client of the Simple Router: `APIClient`, `AsyncAPIClient`, their models and errors."""

from router_client.async_client import AsyncAPIClient
from router_client.background import SyncStream
from router_client.client import DEFAULT_URL, APIClient
from router_client.errors import (
    AnswerLost,
    ConnectionFailed,
    DuplicateTokenId,
    Forbidden,
    InvalidRequest,
    NotFound,
    Problem,
    Refused,
    RouterError,
    ServerError,
    SlowConsumer,
    StreamClosed,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from router_client.flows import Retries
from router_client.models import *  # noqa: F403
from router_client.models import __all__ as _models
from router_client.streams import Stream

__version__ = "1.0.0"

__all__ = [
    "DEFAULT_URL",
    "APIClient",
    "AnswerLost",
    "AsyncAPIClient",
    "ConnectionFailed",
    "DuplicateTokenId",
    "Forbidden",
    "InvalidRequest",
    "NotFound",
    "Problem",
    "Refused",
    "Retries",
    "RouterError",
    "ServerError",
    "SlowConsumer",
    "Stream",
    "StreamClosed",
    "SyncStream",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    *_models,
]
