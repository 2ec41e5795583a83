"""Requests by hand, over a socket that can be let go at any moment: clients that vanish, and clients that are slow."""

import socket
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

TIMEOUT_S = 90


class Unsigned(S3SigV4Auth):
    """Signs everything but the payload, also without TLS: it may break off anywhere."""

    def payload(self, request):
        return "UNSIGNED-PAYLOAD"


class RawClient:
    """Signs for one account and sends to one endpoint."""

    def __init__(self, account):
        self.endpoint = account["endpoint"]
        self.region = account["region"]
        self.credentials = Credentials(account["access_key"], account["secret_key"])
        self.address = (urlsplit(self.endpoint).hostname, urlsplit(self.endpoint).port)

    def open(self, method, path, length=None, receive_buffer_len=None, query=None, headers=()):
        """Sends a request's head. Gives the socket; the body and the answer are the caller's affair."""
        request = AWSRequest(method=method, url=self.endpoint + path, params=query or {})
        for name, value in headers:
            request.headers[name] = value
        if length is not None:
            request.headers["content-length"] = str(length)
        Unsigned(self.credentials, "s3", self.region).add_auth(request)
        prepared = request.prepare()
        parts = urlsplit(prepared.url)
        target = parts.path + ("?" + parts.query if parts.query else "")
        head = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in prepared.headers.items() if name.lower() != "host"]
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_len:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_len)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(self.address)
            connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        except OSError:
            connection.close()
            raise
        return connection

    def presigned(self, method, path, seconds=300):
        """A URL that carries its signature."""
        request = AWSRequest(method=method, url=self.endpoint + path)
        S3SigV4QueryAuth(self.credentials, "s3", self.region, expires=seconds).add_auth(request)
        return request.prepare().url


def vanish(connection, reset):
    """Lets go without a word; with a reset, as a crashed host or an impatient balancer does, or with a plain close."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + (0).to_bytes(4, "little"))
    connection.close()


def read_answer(connection, pause=lambda: None, piece_len=64 << 10):
    """Status, headers and body of an answer that ends with the connection. `pause` is called before every piece."""
    data = bytearray()
    while True:
        pause()
        piece = connection.recv(piece_len)
        if not piece:
            break
        data += piece
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split(" ")[1]), headers, body
