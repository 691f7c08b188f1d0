"""Packages from URLs: who may be asked, and what a hostile host cannot do."""

import datetime
import http.server
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from mlmesh_pipeline.fetch import PackageFetcher

MOST = 100_000


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        getattr(self, "answer_" + path.strip("/").replace(".", "_"), self.answer_missing)(query)

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_missing(self, query: str) -> None:
        self._send(404, b"nothing")

    def answer_p_yaml(self, query: str) -> None:
        self._send(200, f"a: {query}".encode())

    def answer_zip(self, query: str) -> None:
        self._send(200, b"PK\x03\x04rest")

    def answer_tar(self, query: str) -> None:
        self._send(200, b"\x1f\x8brest")

    def answer_to(self, query: str) -> None:
        self._send(302, Location=query)

    def answer_loop(self, query: str) -> None:
        self._send(302, Location="/loop")

    def answer_large(self, query: str) -> None:
        self._send(200, b"x" * (MOST + 1))

    def answer_endless(self, query: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 10_000)

    def answer_broken(self, query: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")
        self.close_connection = True

    def answer_drip(self, query: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x")
            time.sleep(0.02)

    def answer_drip_headers(self, query: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.answer_drip(query)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:  # clients that leave are what is tested
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def fetcher(port) -> PackageFetcher:
    return PackageFetcher(f"example.com, 127.0.0.1:{port}", MOST, seconds=10)


@pytest.mark.parametrize(
    ("path", "name"), [("p.yaml?1", "package.yaml"), ("zip", "package.zip"), ("tar", "package.tar.gz")]
)
def test_a_package_is_fetched_and_known_by_its_first_bytes(fetcher, port, path, name):
    assert fetcher.fetch(f"http://127.0.0.1:{port}/{path}").name == name


def test_the_query_is_sent_and_not_kept(fetcher, port):
    found = fetcher.fetch(f"http://127.0.0.1:{port}/p.yaml?secret")
    assert (found.data, found.url) == (b"a: secret", f"http://127.0.0.1:{port}/p.yaml")


def test_redirects_are_followed_and_checked(fetcher, port):
    base = f"http://127.0.0.1:{port}"
    assert fetcher.fetch(f"{base}/to?{base}/p.yaml?2").data == b"a: 2"
    assert fetcher.fetch(f"{base}/to?/p.yaml").data == b"a: "
    with pytest.raises(FailedPrecondition, match="localhost"):
        fetcher.fetch(f"{base}/to?http://localhost:{port}/p.yaml")
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1"):
        with pytest.raises(InvalidArgument, match="http://HOST"):
            fetcher.fetch(f"{base}/to?{target}")
    with pytest.raises(InvalidArgument, match="redirects more than"):
        fetcher.fetch(f"{base}/to?/loop")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "p.yaml",
        "file:///etc/passwd",
        "ftp://example.com/p.yaml",
        "http:///p.yaml",
        "http://user:secret@example.com/p.yaml",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://[::1/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: x",
        "http://ex\u00e4mple.com/",
        "http://example.com/" + "x" * 3000,
    ],
)
def test_what_is_no_url_is_refused(fetcher, url):
    with pytest.raises(InvalidArgument, match="pipeline_url") as caught:
        fetcher.fetch(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["http://example.org/p.yaml", "http://example.com:8080/", "https://127.0.0.1/", "http://example.com.evil/"]
)
def test_other_hosts_and_ports_are_not_asked(fetcher, url):
    with pytest.raises(FailedPrecondition, match="MLMESH_PIPELINE_PACKAGE_HOSTS"):
        fetcher.fetch(url)


def test_nobody_is_asked_by_default(port):
    with pytest.raises(FailedPrecondition, match="upload"):
        PackageFetcher("", MOST).fetch(f"http://127.0.0.1:{port}/p.yaml")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "localhost",
        "2130706433",
        "0x7f.1",
    ],
)
def test_any_host_means_public_ones(address):
    with pytest.raises((FailedPrecondition, Unavailable), match=r"no public host|looked up"):
        PackageFetcher("*", MOST).fetch(f"http://{address}/p.yaml")


def test_what_is_missing_too_large_or_broken_off(fetcher, port):
    base = f"http://127.0.0.1:{port}"
    with pytest.raises(InvalidArgument, match="answered 404"):
        fetcher.fetch(f"{base}/none")
    for path in ("large", "endless"):
        with pytest.raises(InvalidArgument, match=f"larger than {MOST}"):
            fetcher.fetch(f"{base}/{path}")
    with pytest.raises(Unavailable, match="IncompleteRead"):
        fetcher.fetch(f"{base}/broken")


@pytest.mark.parametrize("path", ["drip", "drip_headers"])
def test_a_host_that_sends_a_byte_at_a_time_gets_no_more_time(port, path):
    with pytest.raises(Unavailable, match="in time"):
        PackageFetcher(f"127.0.0.1:{port}", MOST, seconds=0.3).fetch(f"http://127.0.0.1:{port}/{path}")


def test_a_host_that_is_not_there():
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        PackageFetcher("127.0.0.1:1", MOST).fetch("http://127.0.0.1:1/p.yaml")


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).add_extension(names, critical=False)
    day = datetime.timedelta(days=1)
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return paths


def test_certificates_are_checked(tmp_path, port):
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        secure = server.server_address[1]
        url = f"https://127.0.0.1:{secure}"
        hosts = f"127.0.0.1:{secure},127.0.0.1:{port}"
        try:
            with pytest.raises(Unavailable, match="SSLCertVerificationError"):
                PackageFetcher(hosts, MOST).fetch(f"{url}/p.yaml")
            trusting = PackageFetcher(hosts, MOST, context=ssl.create_default_context(cafile=certificate))
            assert trusting.fetch(f"{url}/p.yaml?3").data == b"a: 3"
            with pytest.raises(InvalidArgument, match="from https"):
                trusting.fetch(f"{url}/to?http://127.0.0.1:{port}/p.yaml")
            slow = PackageFetcher(hosts, MOST, seconds=0.3, context=ssl.create_default_context(cafile=certificate))
            with pytest.raises(Unavailable, match="in time"):
                slow.fetch(f"{url}/drip")
        finally:
            server.shutdown()
            thread.join()
