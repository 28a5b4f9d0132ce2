"""What no client should send, by families, each piece with a name; and seeded mutations of what clients do send.

Pure data: nothing here knows how it is sent, or what should be answered.
"""

import functools
import gzip
import json
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

JSON = "application/json"
ORDER = {"token_id": "n", "symbol": "BTCUSDT", "side": "buy", "order_type": "limit", "price": 1, "quantity": 1}
BODY_LIMIT = 64 * 1024

Headers = tuple[tuple[str, bytes], ...]


class Body(NamedTuple):
    """A body and how it is announced; sent in pieces where it has some."""

    name: str
    data: bytes
    content_type: str | None = JSON
    headers: Headers = ()
    pieces: tuple[int, ...] = ()  # sizes of chunks, the last one repeated; none: with its length


# -- single values, as JSON text

_NUMBERS = (
    "0", "-0", "0.0", "-0.0", "-1", "-0.00000001", "0.000000001", "0.000000005", "0.00000001", "1e-8", "1e-9", "1E5", "1e+5",
    "1e400", "-1e400", "1e308", "1e-300", "1e-9999", "1e99999999999999999999", "9e10", "89999999999.99999999",
    "89999999999.999999995", "90000000000", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "-9223372036854775809", "4611686018427387904", "99999999999999999999", "50000.123456789012345678", "1.5", "0.1",
    "NaN", "Infinity", "-Infinity", "nan", "01", "1.", ".5", "+1", "0x10", "1_000", "--1", "1e", "1,5", "2147483648",
    "9" * 40, "9" * 41, "9" * 5_000, "0." + "1" * 5_000, "1e" + "9" * 50,
)  # fmt: skip
_STRINGS = (
    "", " ", "1", " 1", "1 ", "1\n", "\t1", "-1", "+1", "1e3", "1e400", "1_000", "1,000", "0x10", "NaN", "Infinity", "nan",
    "null", "true", "None", "undefined", "[object Object]", "１２", "٣", "²", "½", "0.000000001", "9e10", "1" * 41,
    "\x00", "a\x00b", "\x7f", "\x1b[31m", "\r\nSet-Cookie: a=b", "\u202eabc", "\u200b", "\ufeff", "\ufffe", "é", "e\u0301",
    "日本", "\U0001f600", "ﬁ", "Å", "ſ", "İ", "ＢＴＣUSDT", "btcuſdt", "BTCUSDT\u0000", "../../etc/passwd", "..\\..", "/", ".", "..",
    "twap", "' OR 1=1 --", "'; DROP TABLE trading_order; --", '" OR ""="', "%s%s%n", "%00", "{{7*7}}", "${jndi:ldap://x}",
    "<script>alert(1)</script>", "]]>", "$(id)", "`id`", "|id", "\\", "\\u0000", "__proto__", "constructor", "__class__",
    "self", "admin", "root", "ALL", "a" * 128, "a" * 129, "a" * 4_097, "a" * 60_000, "2026-13-45T99:99:99Z",
)  # fmt: skip
_OTHERS = (
    "null", "true", "false", "[]", "{}", "[1]", '["a"]', "[[]]", "[null]", '{"a":1}', '{"":""}', '{"$gt":""}', "[" * 14 + "]" * 14,
    "[" * 40 + "]" * 40, '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\u0000"', '"\\x41"', '"\\', "'a'",
    '"a', "nul", "True", "undefined", "", "/**/1", "1//", "{", "]", '"\x00"', '"\n"',
)  # fmt: skip
VALUES: tuple[str, ...] = tuple(
    dict.fromkeys((*_NUMBERS, *(json.dumps(text, ensure_ascii=False) for text in _STRINGS), *_OTHERS))
)


# -- whole bodies


def bodies(valid: Mapping[str, Any] = ORDER) -> Sequence[Body]:
    """Return hostile bodies for an operation that takes such a body, none of them twice."""
    return _bodies(json.dumps(valid))


@functools.cache  # they are megabytes, and most addresses take the same
def _bodies(written: str) -> Sequence[Body]:
    valid = json.loads(written)
    found: dict[tuple[Any, ...], Body] = {}
    for family in (_syntax, _shapes, _encodings, _sizes, _types, _announced, _in_pieces, _fields, _compressed):
        for body in family(dict(valid)):
            found.setdefault(body[1:], body)
    return tuple(found.values())


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _syntax(valid: dict[str, Any]) -> Iterator[Body]:
    text = _dumped(valid)
    for name, data in {
        "empty": b"", "space": b" ", "nul": b"\x00", "cut": text[:-1], "half": text[: len(text) // 2], "tail": text + b"x",
        "twice": text + text, "two lines": text + b"\n" + text, "comma": text[:-1] + b",}", "comment": b"/**/" + text,
        "hash": text + b"#", "single quotes": text.replace(b'"', b"'"), "no quotes": text.replace(b'"', b""),
        "equals": text.replace(b":", b"="), "semicolons": text.replace(b",", b";"), "callback": b"f(" + text + b")",
        "prefix": b")]}'\n" + text, "nul after": text + b"\x00", "nul before": b"\x00" + text,
        "nul within": text[:9] + b"\x00" + text[9:],
        "form feed": b"\x0c" + text, "vertical tab": b"\x0b" + text, "nbsp": b"\xc2\xa0" + text, "bell": b"\x07",
        "ndjson": (text + b"\n") * 3, "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "yaml": b"token_id: &a [*a, *a]", "python": repr(valid).encode(), "pickle": b"\x80\x04\x95\x00.", "query": b"a=1&b=2",
        "brackets": b"{}{}[]", "open": b"{", "close": b"}", "colon": b":", "quote": b'"', "backslash": b"\\", "bom only": b"\xef\xbb\xbf",
        "odd escape": b'{"a":"\\q"}', "short escape": b'{"a":"\\u12"}', "raw newline": b'{"a":"\n"}', "raw control": b'{"a":"\x01"}',
        "number key": b'{1:1}', "null key": b'{null:1}', "no value": b'{"a":}', "no key": b'{:1}', "only key": b'{"a"}',
        "two commas": b'{"a":1,,"b":2}', "leading comma": b'{,"a":1}', "list comma": b"[1,]", "list colon": b'["a":1]',
    }.items():  # fmt: skip
        yield Body(f"syntax: {name}", data)


def _shapes(valid: dict[str, Any]) -> Iterator[Body]:
    for literal in (
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "1e400",
        "NaN",
        '""',
        '"a"',
        "[]",
        "[[]]",
        "[{}]",
        "{}",
        '{"":1}',
    ):
        yield Body(f"shape: {literal}", literal.encode())
    yield Body("shape: in a list", _dumped([valid]))
    yield Body("shape: in an object", _dumped({"data": valid}))
    yield Body("shape: as a string", _dumped(json.dumps(valid)))
    yield Body("shape: as pairs", _dumped(list(valid.items())))
    yield Body("shape: a thousand times", _dumped([valid] * 500))
    for depth in (15, 16, 17, 100, 1_000, 30_000):
        yield Body(f"depth: lists {depth}", b"[" * depth + b"]" * depth)
        yield Body(f"depth: open lists {depth}", b"[" * depth)
        yield Body(f"depth: objects {depth}", b'{"a":' * min(depth, 10_000) + b"1" + b"}" * min(depth, 10_000))
        yield Body(
            f"depth: value {depth}",
            json.dumps({**valid, "x": 0}).replace(" 0}", "[" * depth + "]" * depth + "}").encode(),
        )
    yield Body("depth: brackets in a string", _dumped({**valid, "x": "[{" * 1_000}))
    for name, value in valid.items():
        text = json.dumps(valid)[:-1]
        yield Body(f"twice: {name}", f'{text}, "{name}": {json.dumps(value)}}}'.encode())
        yield Body(f"twice: {name} escaped", f'{text}, "\\u{ord(name[0]):04x}{name[1:]}": null}}'.encode())
    for extra in ("__proto__", "constructor", "__class__", "id", "user_id", "account_id", "status", "filled_quantity", "paper",
                  "is_staff", "is_superuser", "tier", "action", "csrfmiddlewaretoken", "\x00", "", " ", "a" * 10_000, "é"):  # fmt: skip
        yield Body(f"extra: {extra[:20]!r}", _dumped({**valid, extra: 1}))
        yield Body(f"extra object: {extra[:20]!r}", _dumped({**valid, extra: {"a": [True]}}))
    yield Body("extra: many", _dumped({**valid, **{f"k{number}": number for number in range(4_000)}}))
    yield Body("extra: collisions", _dumped({**valid, **{str(number * (2**61 - 1)): 1 for number in range(1_500)}}))


def _encodings(valid: dict[str, Any]) -> Iterator[Body]:
    text = json.dumps(valid)
    for codec in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-7", "utf-8-sig", "cp037", "cp500"):
        yield Body(f"encoding: {codec}", text.encode(codec))
        yield Body(f"encoding: {codec} said so", text.encode(codec), f"{JSON}; charset={codec}")
    raw = text.encode()
    for name, piece in {
        "lone byte": b"\xff", "continuation": b"\x80", "overlong slash": b"\xc0\xaf", "overlong nul": b"\xc0\x80",
        "surrogate": b"\xed\xa0\x80", "pair as two": b"\xed\xa0\xbd\xed\xb8\x80", "too high": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80\x80\x80",
        "cut sequence": b"\xe2\x82", "latin-1": b"\xe9", "c1": b"\xc2\x85", "line separator": b"\xe2\x80\xa8", "bom": b"\xef\xbb\xbf",
        "noncharacter": b"\xef\xbf\xbf", "zalgo": "a\u0301".encode() * 500,
    }.items():  # fmt: skip
        yield Body(f"utf-8: {name}", raw[:-1] + b', "x": "' + piece + b'"}')
        yield Body(f"utf-8: {name} in a key", raw[:-1] + b', "' + piece + b'": 1}')
        yield Body(f"utf-8: {name} before", piece + raw)
    for charset in (
        "bogus",
        "latin-1",
        "utf-16",
        "",
        "'utf-8'",
        "utf-8; charset=utf-16",
        "\x00",
        "a" * 1_000,
        "base64",
        "idna",
        "rot13",
    ):
        yield Body(f"charset: {charset[:20]!r}", raw, f"{JSON}; charset={charset}")


def _sizes(valid: dict[str, Any]) -> Iterator[Body]:
    raw = _dumped(valid)
    for size in (1_000, BODY_LIMIT - 1, BODY_LIMIT, BODY_LIMIT + 1, 100_000):
        yield Body(f"size: spaces to {size}", raw.ljust(size))
        yield Body(f"size: digits to {size}", b"9" * size)
        yield Body(f"size: a string of {size}", b'{"x":"' + b"x" * (size - 8) + b'"}')
        yield Body(f"size: backslashes to {size}", b'{"x":"' + b"\\" * (size - 6))
        yield Body(f"size: commas to {size}", b"[" + b"1," * (size // 2))
    yield Body("size: escapes", b'{"x":"' + b"\\u0041" * 10_000 + b'"}')
    yield Body("size: zeros", b"[" + b"0," * 30_000 + b"0]")


_TYPES = (
    None, "", " ", "text/plain", "text/html", "text/xml", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=", "multipart/form-data; boundary=x", "multipart/form-data; boundary=" + "x" * 5_000, "multipart/mixed; boundary=x",
    "application/octet-stream", "application/json, text/plain", "application/json;", "application/json;;;", "APPLICATION/JSON", "application/jsonp",
    "application/json-patch+json", "application/vnd.api+json", "application/ld+json", "application/problem+json", "application/x-ndjson", "application/msgpack",
    "json", "/", "a/b/c", "*/*", "application/*", "application/json\tx", "application/json; charset", "application/json; a=b; a=c", "\xff/\xfe",
    "application/graphql", "application/x-python-pickle", "image/png", "a" * 5_000, "application/json; q=\"", "application/json; q=\"\\",
)  # fmt: skip


def _types(valid: dict[str, Any]) -> Iterator[Body]:
    for content_type in _TYPES:
        yield Body(f"type: {str(content_type)[:40]!r}", _dumped(valid), content_type)
    form = "&".join(f"{name}={value}" for name, value in valid.items()).encode()
    yield Body("form: fields", form, "application/x-www-form-urlencoded")
    yield Body("form: many", b"a=1&" * 5_000, "application/x-www-form-urlencoded")
    yield Body("form: bad percents", b"%=%&%zz=%00&%ff=%fe", "application/x-www-form-urlencoded")
    yield Body(
        "form: method",
        b"_method=DELETE&_content=%7B%7D&_content_type=application%2Fjson",
        "application/x-www-form-urlencoded",
    )
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    for name, data in {
        "fields": b"".join(part % (key.encode(), b"", str(value).encode()) for key, value in valid.items()) + b"--x--\r\n",
        "file": part % (b"file", b'; filename="../../a.json"', _dumped(valid)) + b"--x--\r\n",
        "no end": part % (b"a", b"", b"b"), "no parts": b"--x--\r\n", "only dashes": b"--" * 3_000, "nul name": part % (b"\x00", b"", b"") + b"--x--",
        "many parts": part % (b"a", b"", b"b") * 900 + b"--x--", "base64": part % (b"a", b"\r\nContent-Transfer-Encoding: base64", b"====") + b"--x--",
        "nested": part % (b"a", b"\r\nContent-Type: multipart/mixed; boundary=x", b"--x--") + b"--x--",
        "long header": b"--x\r\nContent-Disposition: form-data; name=\"" + b"a" * 50_000 + b'"\r\n\r\n\r\n--x--',
    }.items():  # fmt: skip
        yield Body(f"multipart: {name}", data, "multipart/form-data; boundary=x")


def _announced(valid: dict[str, Any]) -> Iterator[Body]:
    """Yield good bodies beside headers that some servers read."""
    raw = _dumped(valid)
    for name, value in (
        ("X-HTTP-Method-Override", b"DELETE"), ("X-HTTP-Method-Override", b"\xff"), ("X-Method-Override", b"PUT"), ("Expect", b"100-continue"),
        ("Expect", b"200-maybe"), ("Content-Language", b"\xff\xfe"), ("Content-MD5", b"x"), ("Range", b"bytes=0-,-1"), ("If-Match", b"*"),
        ("If-None-Match", b'"' + b"a" * 5_000), ("If-Modified-Since", b"Fri, 99 Foo 99999 99:99:99 GMT"), ("If-Modified-Since", b"\x85"), ("TE", b"trailers"),
        ("Accept", b"text/html"), ("Accept", b"application/xml"), ("Accept", b"*/*;q=banana"), ("Accept", b"a" * 5_000), ("Accept", b"\xff"), ("Accept", b",,,;;;"),
        ("Accept", b"application/json; indent=99999"), ("Accept", b"application/json; version=9; charset=\x00".replace(b"\x00", b"?")), ("Accept-Language", b"tlh,*;q=x"),
        ("Accept-Language", b"../../x"), ("Accept-Language", b"a-" * 2_000), ("Accept-Encoding", b"gzip;q=nan, \xff"), ("Accept-Charset", b"\xff"),
        ("Cookie", b"sessionid=\xff"), ("Cookie", b"sessionid=" + b"a" * 4_000), ("Cookie", b"=;=;=\"\\"), ("Cookie", b"csrftoken=x; sessionid=y; messages=!"),
        ("Origin", b"null"), ("Origin", b"https://evil.example"), ("Origin", b"http://[::1"), ("Origin", b"\xff"), ("Referer", b"http://["), ("X-CSRFToken", b"\xff" * 64),
        ("X-Forwarded-For", b"1.2.3.4, \xff, ::1, 999.9.9.9"), ("X-Forwarded-Host", b"evil.example"), ("X-Forwarded-Proto", b"gopher"), ("Forwarded", b"for=\"_x\"; by=["),
        ("X-Request-Id", b"\xff"), ("X-Request-Id", b"a" * 10_000), ("X-Request-Id", b"{{7*7}}"), ("X-Script-Name", b"/admin"), ("X-Original-URL", b"/admin/"),
        ("X-Rewrite-URL", b"/orders"), ("User-Agent", b"() { :; }; id"), ("Upgrade", b"h2c"), ("Upgrade", b"websocket"), ("Connection", b"x, keep-alive"),
        ("Authorization", b"Basic Og=="), ("X-Api-Key", b"sr_x"), ("X-Token-ID", b"\xff"), ("Host", b"evil.example"), ("Via", b"1.1 \xff"), ("Sec-Fetch-Site", b"cross-site"),
        ("Transfer-Encoding", b"identity"), ("Access-Control-Request-Method", b"\xff"), ("Access-Control-Request-Headers", b"a" * 4_000), ("Max-Forwards", b"-1"),
        ("Content_Length", b"5"), ("Content-Type_", b"x"), ("DNT", b"\x85"), ("X-" + "a" * 200, b"b"), ("Priority", b"u=9999999999999"), ("Keep-Alive", b"timeout=-1"),
    ):  # fmt: skip
        yield Body(f"header: {name[:30]}: {value[:20]!r}", raw, JSON, ((name, value),))
    yield Body("header: ninety of them", raw, JSON, tuple((f"X-{number}", b"a") for number in range(90)))
    yield Body("header: a hundred and ten", raw, JSON, tuple((f"X-{number}", b"a") for number in range(110)))
    yield Body("header: 40 KB", raw, JSON, (("X-Long", b"a" * 40_000),))


def _in_pieces(valid: dict[str, Any]) -> Iterator[Body]:
    raw = _dumped(valid)
    yield Body("chunked: whole", raw, JSON, (), (1_000,))
    yield Body("chunked: by the byte", raw, JSON, (), (1,))
    yield Body("chunked: odd sizes", raw, JSON, (), (1, 7, 2, 13))
    yield Body("chunked: empty", b"", JSON, (), (1,))
    yield Body("chunked: too large", b" " * (BODY_LIMIT + 10), JSON, (), (8_192,))
    yield Body("chunked: cut JSON", raw[:-1], JSON, (), (5,))
    yield Body("chunked: a form", b"a=1&b=2", "application/x-www-form-urlencoded", (), (3,))
    yield Body("chunked: not UTF-8", b"\xff" * 100, JSON, (), (1,))
    yield Body("chunked: deep", b"[" * 5_000, JSON, (), (4_096,))


def _fields(valid: dict[str, Any]) -> Iterator[Body]:
    """Yield the good body with each field missing, misspelt, or with each odd value."""
    for name in valid:
        without = {key: value for key, value in valid.items() if key != name}
        yield Body(f"{name}: missing", _dumped(without))
        for spelt in (
            name.upper(),
            f" {name}",
            f"{name} ",
            f"{name}\x00",
            f"{name}[]",
            name.replace("_", "-"),
            name[:-1],
            f"{name}__in",
        ):
            yield Body(f"{name}: as {spelt!r}", _dumped({**without, spelt: valid[name]}))
        before, after = json.dumps({**valid, name: "HERE"}).split('"HERE"', 1)
        for literal in VALUES:
            shown = literal if len(literal) <= 30 else f"{literal[:20]}… of {len(literal)}"
            yield Body(f"{name}: {shown}", f"{before}{literal}{after}".encode())


def _compressed(valid: dict[str, Any]) -> Iterator[Body]:
    raw = _dumped(valid)
    for name, data in {"gzip": gzip.compress(raw, mtime=0), "deflate": zlib.compress(raw), "br": b"\x0b\x02\x80" + raw, "zstd": b"\x28\xb5\x2f\xfd" + raw,
                       "identity": raw, "bogus": raw, "gzip, gzip": raw, "\xff": raw}.items():  # fmt: skip
        yield Body(f"encoded: {name!r}", data, JSON, (("Content-Encoding", name.encode("latin-1")),))
    yield Body("encoded: a bomb", gzip.compress(b" " * 10_000_000, mtime=0), JSON, (("Content-Encoding", b"gzip"),))
    yield Body("encoded: unsaid gzip", gzip.compress(raw, mtime=0))


# -- addresses

SEGMENTS = (
    "%00", "a%00b", "%", "%zz", "%ff", "%c0%af", "%ed%a0%80", "..", "%2e%2e", ".", "%2f", "a%2fb", "%5c", "%0d%0aX:y", "%0a", "%20", "%09", "+", "a%20",
    "%25", "%2500", "*", "~", "null", "undefined", "NaN", "true", "-1", "0", "1", "9223372036854775807", "9223372036854775808", "99999999999999999999999", "1e3", "0x10",
    "%D9%A3", "%EF%BC%91", "1%00", "'", "%22", "%27%20OR%201=1--", "%3Cscript%3E", "%7B%7B7*7%7D%7D", "$%7Bx%7D", "%E2%80%AE", "%F0%9F%98%80", "e%CC%81",
    "%EF%BB%BF", "twap", "all", "ALL", "binance", "BTCUSDT", "btc/usdt", "BTC%2FUSDT", "%C5%BF", "%E2%84%AA", ";a=b", "a;b", "a:b", "@", "!", "a" * 128, "a" * 129,
    "a" * 5_000, "%41" * 2_000, "__debug__", "__class__", "admin", "reset", "x" * 300 + "%00", "00000000-0000-0000-0000-000000000000",
)  # fmt: skip
QUERIES = (
    "", "&", "=", "&&&", "=&=", "a", "%", "%zz=%zz", "%00=%00", "%ff=%ff", "%ed%a0%80=1", "a=" + "b" * 8_000, "&".join(f"k{n}=1" for n in range(1_500)),
    "a=1&" * 2_000, "a[]=1&a[b]=2", "a;b=c", "+=+", "%u0041=1", "\\", "'", "%22%3E%3Cscript%3E", "a=%0d%0aX:y", "__proto__=1", "_method=DELETE",
    "token=eyJ.eyJ.x", "token=%00", "format=html", "format=api", "format=xml", "format=%00", "format=csv", "format=csv&format=json", "format=", "script=", "lang=%00",
)  # fmt: skip
PARAMETERS = (
    "limit", "cursor", "status", "symbol", "asset", "order", "format", "interval", "start", "end", "depth", "client_type", "page", "q", "p", "o", "e", "all",
    "next", "ordering", "_to_field", "_popup", "id", "id__exact", "user__password__startswith", "pk__in", "lang", "script", "version", "token",
)  # fmt: skip
PARAMETER_VALUES = (
    "", "a%0d%0aX-Y:%20z", "%00", "%ff", "a%00b", "-1", "0", "1", "1.5", "%31", "1e3", "1e400", "NaN", "Infinity", "nan", "99999999999999999999", "9" * 5_000, "%D9%A3", "+1", "%201",
    "1_0", "true", "null", "[]", "%7B%7D", "a" * 2_000, "'", "%27--", "%3Cb%3E", "..", "%2F", "%ed%a0%80", "%F0%9F%98%80", "open", "OPEN", "BTCUSDT", "btc/usdt", "1m", "1M",
    "2026-01-01T00:00:00Z", "2026-13-45", "0001-01-01T00:00:00%2B99:99", "9999-12-31T23:59:59Z", "-9999999999", "253402300800", "1e18", "basic_client", "all", "csv", "json",
    "eyJ", "MTIz", "%2B", "1,2", "1&limit=2", "0x10",
)  # fmt: skip
CREDENTIALS: tuple[Headers, ...] = (
    (),
    *(
        (("Authorization", value),)
        for value in (
            b"", b"Bearer", b"Bearer ", b"Bearer  x", b"bearer \xff\xfe", b"Bearer null", b"Bearer a.b.c", b"Bearer eyJhbGciOiJub25lIn0.e30.",
            b"Bearer " + b"a" * 20_000, b"Bearer sr_" + b"a" * 43, b"Bearer sr_\xc3\xa9", b"Basic YTpi", b"Digest x", b"Bearer a,b", b"Bearer a b c", b"\xc2\xa0Bearer x",
            b"Bearer eyJhbGciOiJIUzI1NiJ9.W10.AAAA", b"Bearer ....", b"Bearer e30.e30.e30", b"Bearer " + b"." * 5_000,
        )
    ),
    *((("X-API-Key", value),) for value in (b"", b"sr_", b"sr_x", b"sr_\xff", b"sr_" + b"a" * 5_000, b"%00", b"a" * 43)),
    (("X-Token-ID", b"sr_" + b"0" * 43),),
    (("X-API-Key", b"a"), ("X-API-Key", b"b")),
    (("Authorization", b"Bearer a"), ("Authorization", b"Bearer b")),
    (("Authorization", b"Bearer a"), ("X-API-Key", b"sr_b")),
    (("Cookie", b"sessionid=" + b"a" * 32),),
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
ODD_METHODS = ("TRACE", "PROPFIND", "PURGE", "SEARCH", "LOCK", "MKCOL", "M-SEARCH", "NOTIFY", "UNLINK", "QUERY")


# -- mutations

_SCRAPS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"-", b"1e999", b"9" * 45, b'"\\ud800"', b"\\u0000", b"\x00", b"\xff", b"\xc3\xa9", b"\xd9\xa1",
    b'""', b"{}", b"[" * 40, b" ", b"\\", b".", b"0", b"e5", b"\xed\xa0\x80", b"\xef\xbb\xbf",
)  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Cut, repeat, swap, overwrite or insert a few pieces."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randint(0, len(data))
        end = dice.randint(start, min(len(data), start + dice.choice((1, 1, 4, 16))))
        kind = dice.randrange(5)
        if kind == 0:
            piece = b""
        elif kind == 1:
            piece = data[start:end] * dice.choice((2, 3, 20))
        elif kind == 2:
            piece = dice.randbytes(dice.randint(1, 4))
        elif kind == 3:
            piece = bytes(byte ^ (1 << dice.randrange(8)) for byte in data[start:end])
        else:
            piece = dice.choice(_SCRAPS)
        data = data[:start] + piece + data[end:]
    return data


def with_odd_values(value: Any, dice: random.Random) -> bytes:
    """Write an object with some of its values, also inner ones, replaced by odd ones."""
    marks: list[str] = []

    def marked(inner: Any) -> Any:
        if dice.random() < 0.25:
            marks.append(dice.choice(VALUES))
            return f"MARK{len(marks) - 1}HERE"
        if isinstance(inner, dict):
            return {key: marked(part) for key, part in inner.items() if dice.random() < 0.95}
        return [marked(part) for part in inner] if isinstance(inner, list) else inner

    text = json.dumps({key: marked(part) for key, part in value.items()})
    for number, literal in enumerate(marks):
        text = text.replace(f'"MARK{number}HERE"', literal, 1)
    return text.encode(errors="surrogatepass")
