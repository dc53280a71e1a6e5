"""An upload whose bytes go out when the test says so."""

import socket

import requests
from support.stack import Stack


class Upload:
    """One `POST /v1/files` on a socket of its own; `promised` bytes of file are announced."""

    def __init__(self, stack: Stack, promised: int) -> None:
        self._form = (
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        )
        self._end = b"\r\n--x--\r\n"
        self._left = promised
        self._socket = socket.create_connection(("127.0.0.1", stack.port))
        self._socket.settimeout(20)
        length = len(self._form) + promised + len(self._end)
        head = (
            "POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + self._form)

    def send(self, count: int) -> None:
        self._left -= count
        self._socket.sendall((b"y" * 99 + b"\n") * (count // 100))

    def finish(self) -> None:
        self.send(self._left)
        self._socket.sendall(self._end)

    def answer(self) -> requests.Response:
        """What the server says, read to the connection's end."""
        said = b""
        while part := self._socket.recv(65536):
            said += part
        self.close()
        head, _, body = said.partition(b"\r\n\r\n")
        found = requests.Response()
        status, *fields = head.decode().split("\r\n")
        found.status_code = int(status.split()[1])
        found.headers.update(dict(field.split(": ", 1) for field in fields))
        found._content = body
        return found

    def close(self) -> None:
        self._socket.close()
