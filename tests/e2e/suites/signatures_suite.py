#!/usr/bin/env python3
"""Signature Version 4 by hand: what SDKs do with dates, names, hosts and limits, and what nobody should get away with.

The signer below is written from the documentation ("Authenticating Requests (AWS Signature Version 4)") and shares nothing with
the one that is tested. Requests go out over a bare connection, so that no library tidies them up.
"""

import datetime
import hashlib
import hmac
import os
import re
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import http.client  # noqa: E402

from harness import Suite, same  # noqa: E402

suite = Suite("signatures")
step = suite.step
BUCKET = suite.bucket
HOST = urllib.parse.urlsplit(suite.endpoint).netloc
BODY = b"signed by hand"
EMPTY = hashlib.sha256(b"").hexdigest()


def now(minutes=0):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)


def amz(time):
    return time.strftime("%Y%m%dT%H%M%SZ")


def http_date(time):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT")


def encoded(text, safe=""):
    return urllib.parse.quote(text, safe=safe + "-._~")


def canonical_path(path):
    return encoded(urllib.parse.unquote_to_bytes(path), "/")


def canonical_query(query):
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    return "&".join(f"{name}={value}" for name, value in sorted(
        tuple(encoded(urllib.parse.unquote_to_bytes(part.replace("+", " "))) for part in pair) for pair in pairs))


def signature(method, path, query, headers, payload, time):
    """Signature and names of the signed headers; `headers` is a list of pairs."""
    values = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(re.sub(" +", " ", value.strip()))
    names = ";".join(sorted(values))
    lines = "".join(f"{name}:{','.join(values[name])}\n" for name in sorted(values))
    request = "\n".join([method, canonical_path(path), canonical_query(query), lines, names, payload])
    scope = f"{amz(time)[:8]}/{suite.region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", amz(time), scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + suite.secret_key).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest(), names, scope


def send(method, target, headers, body=b""):
    connection = http.client.HTTPConnection(HOST, timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    answer = response.read()
    code = re.search(rb"<Code>(\w+)</Code>", answer)
    connection.close()
    return response.status, code.group(1).decode() if code else None, answer


def call(method, path, query="", body=b"", headers=(), unsigned=(), time=None, dates=None, target=None, payload=None, host=HOST):
    """A request signed in the header. `dates` are the headers of the date, if not x-amz-date alone; `target` is what is sent."""
    time = time or now()
    payload = payload or hashlib.sha256(body).hexdigest()
    dates = [("x-amz-date", amz(time))] if dates is None else dates
    signed = [("Host", host), ("x-amz-content-sha256", payload), *dates, *headers]
    value, names, scope = signature(method, path, query, signed, payload, time)
    authorization = f"AWS4-HMAC-SHA256 Credential={suite.access_key}/{scope}, SignedHeaders={names}, Signature={value}"
    target = target or path + (f"?{query}" if query else "")
    return send(method, target, [*signed, ("Authorization", authorization), *unsigned], body)


def presigned(path, expires, time=None, extra=""):
    """Path and query of a presigned GET."""
    time = time or now()
    scope = f"{amz(time)[:8]}/{suite.region}/s3/aws4_request"
    query = (f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={encoded(suite.access_key + '/' + scope)}&X-Amz-Date={amz(time)}"
             f"&X-Amz-Expires={expires}&X-Amz-SignedHeaders=host{extra}")
    value, _, _ = signature("GET", path, query, [("Host", HOST)], "UNSIGNED-PAYLOAD", time)
    return f"{path}?{query}&X-Amz-Signature={value}"


same(call("PUT", f"/{BUCKET}")[0], 200, "status of CreateBucket")
same(call("PUT", f"/{BUCKET}/k", body=BODY)[0], 200, "status of PutObject")


@step("the payload may be hashed or left unsigned, and a wrong hash is noticed")
def _():
    same(call("PUT", f"/{BUCKET}/payload", body=BODY, payload="UNSIGNED-PAYLOAD")[0], 200, "status")
    same(call("PUT", f"/{BUCKET}/payload", body=BODY, payload=EMPTY)[:2], (400, "XAmzContentSHA256Mismatch"), "answer")
    same(call("GET", f"/{BUCKET}/payload")[2], BODY, "body")


@step("the date may stand in Date alone, and x-amz-date counts where both are there")
def _():
    time = now()
    same(call("GET", f"/{BUCKET}/k", time=time, dates=[("Date", http_date(time))])[::2], (200, BODY), "with Date")
    both = [("Date", http_date(now(-600))), ("x-amz-date", amz(time))]
    same(call("GET", f"/{BUCKET}/k", time=time, dates=both)[::2], (200, BODY), "with both")
    wrong = [("Date", http_date(time)), ("x-amz-date", amz(now(-600)))]
    same(call("GET", f"/{BUCKET}/k", time=now(-600), dates=wrong)[:2], (403, "RequestTimeTooSkewed"), "answer")


@step("clocks may differ by fifteen minutes, and beyond the answer has both times")
def _():
    for minutes in [-14, 14]:
        same(call("GET", f"/{BUCKET}/k", time=now(minutes))[0], 200, f"status at {minutes} minutes")
    for minutes in [-16, 16, -60 * 24 * 400]:
        status, code, answer = call("GET", f"/{BUCKET}/k", time=now(minutes))
        same((status, code), (403, "RequestTimeTooSkewed"), f"answer at {minutes} minutes")
        for field in [b"RequestTime", b"ServerTime", b"MaxAllowedSkewMilliseconds"]:
            if b"<" + field + b">" not in answer:
                raise AssertionError(f"no {field.decode()} in {answer!r}")


@step("a date that is missing or none is denied")
def _():
    for dates in [[], [("x-amz-date", "")], [("x-amz-date", "Bad Date")], [("Date", "yesterday")], [("x-amz-date", "20261321T000000Z")]]:
        same(call("GET", f"/{BUCKET}/k", dates=dates)[:2], (403, "AccessDenied"), f"answer to {dates}")


@step("a name is one name in every spelling of its path")
def _():
    spellings = {
        "spelled/ü +~&=": ["spelled/%c3%bc%20%2b%7e%26%3d", "spelled/%C3%BC%20+~&=", "%73pelled%2F%C3%BC%20%2B%7E%26%3D"],
        "spelled/(a)!*'": ["spelled/(a)!*'", "spelled/%28a%29%21%2A%27"],
        "spelled//a/../b/.": ["spelled//a/../b/.", "spelled/%2fa%2F..%2Fb/%2E"],
        "spelled/100%25": ["spelled/100%2525"],
    }
    for name, paths in spellings.items():
        for number, path in enumerate(paths):
            body = f"{name} {number}".encode()
            same(call("PUT", f"/{BUCKET}/{path}", body=body)[0], 200, f"status of PUT {path}")
            same(call("GET", f"/{BUCKET}/{encoded(name.encode(), '/')}")[2], body, f"body after PUT {path}")
            same(call("DELETE", f"/{BUCKET}/{path}")[0], 204, f"status of DELETE {path}")


@step("a query is signed in every spelling and order")
def _():
    for query in ["list-type=2&prefix=k", "prefix=k&list-type=2", "list-type=2&prefix=%6b", "list-type=2&delimiter=&prefix=k",
                  "list-type=2&prefix=k&encoding-type=url", "list-type=%32&prefix=k&max-keys=5&start-after=a+b"]:
        status, _, answer = call("GET", f"/{BUCKET}", query)
        same((status, re.findall(rb"<Key>(.*?)</Key>", answer)), (200, [b"k"]), f"listing by {query}")
    same(call("GET", f"/{BUCKET}", "prefix=k", target=f"/{BUCKET}?prefix=j")[1], "SignatureDoesNotMatch", "code")


@step("headers are signed trimmed, joined and in lower case")
def _():
    headers = [("X-Amz-Meta-A", "  two   words "), ("x-amz-meta-b", "one"), ("x-amz-meta-b", "two"), ("Content-Type", "text/x;  a=b")]
    same(call("PUT", f"/{BUCKET}/headers", body=BODY, headers=headers)[0], 200, "status")
    same(call("DELETE", f"/{BUCKET}/headers")[0], 204, "status")


@step("a target in absolute form is served")
def _():
    same(call("GET", f"/{BUCKET}/k", target=f"http://{HOST}/{BUCKET}/k")[::2], (200, BODY), "answer")
    same(call("GET", f"/{BUCKET}", "prefix=k", target=f"http://{HOST}/{BUCKET}?prefix=k")[0], 200, "status")


@step("what was signed for another host, method, name or secret does not match")
def _():
    for arguments in [
        {"host": "elsewhere.example.org", "target": None}, {"target": f"/{BUCKET}/other"}, {"target": f"/{BUCKET}/k?acl"},
    ]:
        path = f"/{BUCKET}/k"
        if "host" in arguments:
            time = now()
            signed = [("Host", arguments["host"]), ("x-amz-content-sha256", EMPTY), ("x-amz-date", amz(time))]
            value, names, scope = signature("GET", path, "", signed, EMPTY, time)
            authorization = f"AWS4-HMAC-SHA256 Credential={suite.access_key}/{scope},SignedHeaders={names},Signature={value}"
            # The name that was signed, in a header that nobody has said to trust.
            got = send("GET", path, [("Host", HOST), *signed[1:], ("Authorization", authorization), ("X-Forwarded-Host", signed[0][1])])
        else:
            got = call("GET", path, **arguments)
        same(got[:2], (403, "SignatureDoesNotMatch"), f"answer to {arguments}")


@step("a header of Amazon's that is not signed is denied")
def _():
    same(call("GET", f"/{BUCKET}/k", unsigned=[("x-amz-meta-a", "1")])[:2], (403, "AccessDenied"), "answer")


@step("two ways of authentication at once are none")
def _():
    target = presigned(f"/{BUCKET}/k", 60)
    path, _, query = target.partition("?")
    same(call("GET", path, query)[:2], (400, "InvalidArgument"), "answer")
    same(send("GET", f"{target}&AWSAccessKeyId=a&Signature=b&Expires=1", [("Host", HOST)])[:2], (400, "InvalidArgument"), "answer")


@step("presigned: from a second to a week")
def _():
    for expires in ["60", "604800"]:
        same(send("GET", presigned(f"/{BUCKET}/k", expires), [("Host", HOST)])[::2], (200, BODY), f"answer to {expires}")
    for expires in ["0", "-1", "604801", "99999999999999999999"]:
        same(send("GET", presigned(f"/{BUCKET}/k", expires), [("Host", HOST)])[:2], (403, "AccessDenied"), f"answer to {expires}")
    same(send("GET", presigned(f"/{BUCKET}/k", "soon"), [("Host", HOST)])[0], 400, "status")


@step("presigned: neither before its time nor after it")
def _():
    for minutes, expires, status in [(-2, 60, 403), (-2, 600, 200), (14, 60, 200), (16, 60, 403)]:
        got = send("GET", presigned(f"/{BUCKET}/k", expires, now(minutes)), [("Host", HOST)])
        same(got[0], status, f"status at {minutes} minutes for {expires} seconds")


for key in ["k", "payload"]:
    call("DELETE", f"/{BUCKET}/{key}")
same(call("DELETE", f"/{BUCKET}")[0], 204, "status of DeleteBucket")
