"""Certificates: what is refused in which words, what clients see, and what a renewed one changes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from predawn.proxy.listening import bind, listen
from predawn.proxy.settings import TlsSettings
from predawn.proxy.tls import Certificate, TlsError, load

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
AUTHORITY = trustme.CA()


@pytest.fixture(params=[*LOOPS.values()], ids=[*LOOPS])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on each of the loops."""

    def run_on_loop(coro: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coro)

    return run_on_loop


def pair(folder: Path, *, key: trustme.KeyType = trustme.KeyType.ECDSA, name: str = "server") -> TlsSettings:
    """A new certificate for localhost, and its key."""
    issued = AUTHORITY.issue_cert("localhost", key_type=key)
    files = folder / f"{name}.crt", folder / f"{name}.key"
    files[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files[1].write_bytes(issued.private_key_pem.bytes())
    return TlsSettings(cert_file=files[0], key_file=files[1])


def lock(settings: TlsSettings, password: str) -> None:
    key = load_pem_private_key(settings.key_file.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
    settings.key_file.write_bytes(locked)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = pair(tmp_path)
    settings.key_file.unlink()

    with pytest.raises(TlsError, match=r"server\.tls\.key_file: .*server\.key: No such file"):
        load(settings)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    other = pair(tmp_path, name="other")
    settings = pair(tmp_path).model_copy(update={"key_file": other.key_file})

    with pytest.raises(TlsError, match=r"other\.key is not the key of the certificate in .*server\.crt"):
        load(settings)


@pytest.mark.parametrize(
    ("password", "words"), [(None, "is encrypted; set server.tls.key_password"), ("wrong", "does not open")]
)
def test_a_locked_key_asks_for_its_password_and_not_at_the_terminal(
    password: str | None, words: str, tmp_path: Path
) -> None:
    settings = pair(tmp_path)
    lock(settings, "right")
    told = TlsSettings.model_validate({**settings.model_dump(), "key_password": password})

    with pytest.raises(TlsError, match=words):
        load(told)
    load(TlsSettings.model_validate({**settings.model_dump(), "key_password": "right"}))


def test_what_is_no_pem_is_named_with_what_to_do(tmp_path: Path) -> None:
    settings = pair(tmp_path)
    certificate = x509.load_pem_x509_certificate(settings.cert_file.read_bytes())
    settings.cert_file.write_bytes(certificate.public_bytes(Encoding.DER))

    with pytest.raises(TlsError, match=r"server\.tls\.cert_file: .* holds no certificate in PEM; `openssl x509"):
        load(settings)


def test_files_in_the_wrong_order_are_named(tmp_path: Path) -> None:
    settings = pair(tmp_path)
    swapped = TlsSettings(cert_file=settings.key_file, key_file=settings.cert_file)

    with pytest.raises(TlsError, match=r"server\.key holds no certificate"):
        load(swapped)


def client_context(**over: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    for name, value in over.items():
        setattr(context, name, value)
    return context


class Echo(asyncio.Protocol):
    """Answers what it is sent; `switch` hands the connection to another protocol, with what had come."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data == b"switch":
            other = Shout()
            self.transport.set_protocol(other)
            other.connection_made(self.transport)
            other.data_received(data)
        else:
            self.transport.write(data)


class Shout(Echo):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
        if data == b"end":
            self.transport.close()


async def shown(port: int, context: ssl.SSLContext) -> bytes:
    """The certificate that a client is shown."""
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    writer.close()
    await writer.wait_closed()
    return certificate


def der(settings: TlsSettings) -> bytes:
    return x509.load_pem_x509_certificate(settings.cert_file.read_bytes()).public_bytes(Encoding.DER)


def test_a_renewed_certificate_is_shown_from_the_next_connection_on(run: Any, tmp_path: Path) -> None:
    """Also one of another kind of key; a context would keep the old one beside it, and clients choose."""
    old, new = pair(tmp_path), pair(tmp_path, key=trustme.KeyType.RSA, name="new")

    async def scenario() -> tuple[bytes, bytes, bytes]:
        certificate = Certificate(old)
        listening = await listen(Echo, bind("127.0.0.1", 0), tls=certificate.context)
        context = client_context()
        reader, writer = await asyncio.open_connection("localhost", listening.port, ssl=context)
        first = await shown(listening.port, context)
        certificate.renew(load(new))
        writer.write(b"still here")
        kept = await reader.readexactly(10)
        second = await shown(listening.port, context)
        writer.close()
        await writer.wait_closed()
        listening.close()
        await listening.wait_closed()
        return first, kept, second

    assert run(scenario()) == (der(old), b"still here", der(new))


def test_a_connection_can_be_handed_to_another_protocol_in_the_middle(run: Any, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        listening = await listen(Echo, bind("127.0.0.1", 0), tls=Certificate(pair(tmp_path)).context)
        reader, writer = await asyncio.open_connection("localhost", listening.port, ssl=client_context())
        received = b""
        for word in (b"first", b"switch", b"second", b"end"):
            writer.write(word)
            received += await reader.readexactly(len(word))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        listening.close()
        await listening.wait_closed()
        return received

    assert run(scenario()) == b"firstSWITCHSECONDEND"


def test_only_tls_1_2_and_later_and_http_1_1_are_spoken(run: Any, tmp_path: Path) -> None:
    async def scenario() -> tuple[Any, bool]:
        listening = await listen(Echo, bind("127.0.0.1", 0), tls=Certificate(pair(tmp_path)).context)
        modern = client_context()
        modern.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("localhost", listening.port, ssl=modern)
        spoken = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        await writer.wait_closed()
        old = client_context(maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1)
        old.set_ciphers("ALL:@SECLEVEL=0")
        try:
            await asyncio.open_connection("localhost", listening.port, ssl=old)
            refused = False
        except (ssl.SSLError, ConnectionError):
            refused = True
        listening.close()
        await listening.wait_closed()
        return spoken, refused

    with pytest.warns(DeprecationWarning):
        assert run(scenario()) == ("http/1.1", True)


def test_plain_http_on_a_port_with_tls_is_closed_without_an_answer(run: Any, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        listening = await listen(Echo, bind("127.0.0.1", 0), tls=Certificate(pair(tmp_path)).context)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        listening.close()
        await listening.wait_closed()
        return answer

    assert b"HTTP" not in run(scenario())


def test_connections_that_wait_are_accepted_before_the_socket_closes(run: Any) -> None:
    async def scenario() -> list[bytes]:
        (bound,) = bind("127.0.0.1", 0)
        listening = await listen(Echo, [bound])
        waiting = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(20)]  # noqa: ASYNC251
        await listening.drain()
        answers = []
        for client in waiting:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, b"x")
            answers.append(await asyncio.wait_for(loop.sock_recv(client, 1), 5))
            client.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listening.port)
        return answers

    assert run(scenario()) == [b"x"] * 20
