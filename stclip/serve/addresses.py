"""Videos from addresses that strangers give: only public ones, and no more than is allowed."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from stclip.errors import UserError

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = 5
_SILENCE = 10.0  # seconds without a byte, after which a server is given up
_CHUNK = 1 << 16
# All of IPv6 that is given to the public internet. Outside it are forms that hold an IPv4 address,
# which may be private, and ranges that are private themselves.
_PUBLIC = ipaddress.ip_network("2000::/3")


def is_public(host: str) -> bool:
    """Whether an IP address belongs to the public internet: not to this machine or its network."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or [None])[-1]
        if inner is not None:
            return is_public(str(inner))
        if address not in _PUBLIC:
            return False
    return address.is_global and not address.is_multicast


def fetch(
    address: str,
    target: Path,
    most: int,
    seconds: float = 300.0,
    public: Callable[[str], bool] = is_public,
    ports: dict[str, int] = _PORTS,
) -> None:
    """Download a file of the public internet.

    Every redirect is checked as the first address is. A name is resolved once, and the connection
    made to the very IP address that was checked, so that another answer of the name server later
    leads nowhere.

    Args:
        address: http:// or https://, at the usual port.
        target: a new file.
        most: bytes.
        seconds: for all of it.
        public: whether an IP address may be connected to.
        ports: of each scheme, the only one that may be connected to.

    Raises:
        UserError: the address is of another kind or leads to no public server, there is no such
            file, or it is too large or too slow.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        connection, path = _connection(address, public, ports)
        # A server that drips its header or its handshake is never silent.
        alarm = threading.Timer(max(deadline - time.monotonic(), 0.0), connection.abort)
        alarm.start()
        try:
            connection.request("GET", path, headers={"Accept": "*/*", "User-Agent": "stclip"})
            response = connection.getresponse()
            location = response.getheader("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                address = urljoin(address, location)
                continue
            if response.status != 200:
                raise UserError(f"{address}: the server answered {response.status}, expected 200")
            _save(response, address, target, most, deadline)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                raise UserError(f"{address}: the download took too long") from error
            if isinstance(error, UserError):
                raise
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UserError(f"{address}: cannot be fetched ({reason})") from error
        finally:
            alarm.cancel()
            connection.close()
    raise UserError(f"{address}: more than {_REDIRECTS} redirects")


class _Pinned(http.client.HTTPConnection):
    """A connection to an IP address, in whose requests the host has its name.

    Args:
        host: the name.
        port: of the server.
        peer: the IP address.
        context: None for http.
    """

    def __init__(self, host: str, port: int, peer: str, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=_SILENCE)
        self.default_port = port  # so that the header Host is the name alone
        self._peer, self._context = peer, context
        self._late = False

    def connect(self) -> None:
        """Connect; a proxy of the environment is not used."""
        self.sock = socket.create_connection((self._peer, self.port), _SILENCE)
        if self._late:
            raise TimeoutError
        if self._context is not None:
            self.sock = self._context.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()

    def abort(self) -> None:
        """End all waiting for the server, from another thread."""
        self._late = True
        with suppress(OSError, AttributeError):  # it may be closed, or not be open yet
            self.sock.shutdown(socket.SHUT_RDWR)


def _connection(
    address: str, public: Callable[[str], bool], ports: dict[str, int]
) -> tuple[_Pinned, str]:
    """A connection to the server of an address, and what is asked of it."""
    try:
        parts = urlsplit(address)
        scheme, host, given = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{address!r:.200}: no address ({error})") from error
    if scheme not in ports or not host or not address.isascii() or not address.isprintable():
        raise UserError(f"{address!r:.200}: an address of http:// or https:// expected")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"{host}: an address without user and password expected")
    port = ports[scheme]
    if given not in (None, port):
        raise UserError(f"{host}: port {given}; only {port} may be used with {scheme}://")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{host}: there is no such server") from error
    peers = [str(entry[4][0]) for entry in found]
    # One private address among public ones is no accident.
    if not peers or not all(map(public, peers)):
        raise UserError(f"{host}: is not on the public internet; give another address")
    context = ssl.create_default_context() if scheme == "https" else None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Pinned(host, port, peers[0], context), path.replace(" ", "%20")


def _save(
    response: http.client.HTTPResponse, address: str, target: Path, most: int, deadline: float
) -> None:
    size = 0
    with target.open("xb") as file:
        # read1 returns what has come: a server that drips cannot hold it beyond the deadline.
        while data := response.read1(_CHUNK):
            size += len(data)
            if max(size, response.length or 0) > most:
                raise UserError(f"{address}: larger than {most / 2**20:.0f} MB")
            if time.monotonic() > deadline:
                raise UserError(f"{address}: the download took too long")
            file.write(data)
    if response.length:
        raise UserError(f"{address}: the transfer broke off; please try again")
