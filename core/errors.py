"""The errors that a person or a client is told about, each once, with a stable code."""


class DomainError(Exception):
    """A refusal with a stable `code` and a message for a person.

    The status that a client sees is chosen in `router_project/errors.py` by class.
    """

    code = "error"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Refused(DomainError):
    """A well-formed request that the account or the market refuses (400)."""

    code = "refused"


class Invalid(DomainError):
    """A value of the wrong shape, named by its place in the request (422)."""

    code = "invalid"

    def __init__(self, message: str, *, loc: tuple[str | int, ...] = (), kind: str = "value_error") -> None:
        super().__init__(message)
        self.loc = loc
        self.kind = kind


class Malformed(DomainError):
    """A body or frame that is not the JSON this server reads (400)."""

    code = "malformed"


class TooLarge(DomainError):
    """A body over the limit (413)."""

    code = "too_large"


class Unauthorized(DomainError):
    """Missing, bad or expired credentials (401)."""

    code = "unauthorized"


class NotFound(DomainError):
    """No such thing, or another user's (404)."""

    code = "not_found"


class Unavailable(DomainError):
    """A dependency is down; worth a retry (503 with Retry-After)."""

    code = "unavailable"


class UnknownSymbol(Refused):
    code = "unknown_symbol"


class UnknownVenue(Refused):
    code = "unknown_exchange"
