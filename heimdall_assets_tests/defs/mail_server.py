"""A small real mail server for tests: it speaks as much SMTP as a client needs (RFC 5321), STARTTLS and AUTH PLAIN."""

import base64
import socket
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any


@dataclass
class MailServer:
    """What it heard: commands as they came, messages whole, logins. ``refuses``: receivers that it does not take."""

    port: int = 0
    context: ssl.SSLContext | None = None
    refuses: frozenset[str] = frozenset()
    commands: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


def _answer(server: MailServer, sock: socket.socket, greeting: str = "") -> None:
    with sock.makefile("rwb") as stream:
        _speak(server, sock, stream, greeting)


def _speak(server: MailServer, sock: socket.socket, stream: Any, greeting: str) -> None:
    def say(line: str) -> None:
        stream.write(f"{line}\r\n".encode())
        stream.flush()

    if greeting:
        say(greeting)
    while line := stream.readline().decode().strip():
        server.commands.append(line)
        verb, _, rest = line.partition(" ")
        verb = verb.upper()
        if verb == "EHLO":
            offers = ["test"]
            offers += ["STARTTLS"] if server.context and not isinstance(sock, ssl.SSLSocket) else []
            offers += ["AUTH PLAIN"]
            for offer in offers[:-1]:
                say(f"250-{offer}")
            say(f"250 {offers[-1]}")
        elif verb == "STARTTLS" and server.context:
            say("220 go")
            with server.context.wrap_socket(sock, server_side=True) as encrypted:
                _answer(server, encrypted)
            return
        elif verb == "AUTH":
            server.logins.append(base64.b64decode(rest.removeprefix("PLAIN ")).decode())
            say("235 in")
        elif verb == "RCPT" and any(name in rest for name in server.refuses):
            say("550 nobody of this name")
        elif verb == "DATA":
            say("354 go on")
            lines = []
            while (text := stream.readline().decode().rstrip("\r\n")) != ".":
                lines.append(text)
            server.messages.append("\n".join(lines))
            say("250 taken")
        elif verb == "QUIT":
            say("221 bye")
            return
        else:
            say("250 fine")


@contextmanager
def run_mail_server(
    context: ssl.SSLContext | None = None, refuses: frozenset[str] = frozenset()
) -> Iterator[MailServer]:
    """Give a server on a free port of this machine."""
    told = MailServer(context=context, refuses=refuses)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                _answer(told, self.request, "220 test")
            except OSError:
                return  # the client went away: a test of that asks the client

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        told.port = listening.server_address[1]
        Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield told
        finally:
            listening.shutdown()


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of a certificate of ``localhost``, and the context of a server that has its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context
