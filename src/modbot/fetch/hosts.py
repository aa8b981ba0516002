"""Where fetching may go: Discord's file hosts over https, what the operator named, and files below one folder.

A link is judged as the client will use it: parsed once, by the client's own parser, and the address that is connected
to is the one that was judged.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from yarl import URL

from modbot.errors import SettingError
from modbot.fetch.budget import Lane
from modbot.records.index import DISCORD_CDN_HOSTS

BAD_ROW = "bad_row"
FORBIDDEN = "forbidden_host"
FAILED = "fetch_failed"

MAX_URL = 8_192
_UNUSABLE = re.compile(r"[\x00-\x20\x7f\\]")
_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?", re.ASCII)
_SHOWN = 100
_NO_ROOT = "file: links are read only below MODBOT_FILE_ROOT, which is not set"
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class LinkError(Exception):
    """One link that gives no image: a kind of `records.p1.ERROR_KINDS`, one line of detail, the HTTP status if any."""

    def __init__(self, kind: str, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status


class ForbiddenAddressError(OSError):
    """A name that is not allowed to lead to a private address, and does."""


@dataclass(frozen=True)
class HostPolicy:
    """What may be fetched.

    `allowed`: hosts by name, each with the one port that is allowed, or None for every port.
    `file_root`: `file:` links are read below it; None: not at all.
    """

    allowed: frozenset[tuple[str, int | None]] = frozenset()
    file_root: Path | None = None

    @classmethod
    def of(cls, allow_hosts: Iterable[str] = (), file_root: Path | None = None) -> HostPolicy:
        """The policy for entries `host` or `host:port`, as a setting or a flag gives them.

        Raises:
            SettingError: an entry that is neither.
        """
        return cls(frozenset(_entry(text) for text in allow_hosts), file_root)

    def check(self, text: str) -> URL:
        """The link, if it may be fetched.

        Raises:
            LinkError: `bad_row` for what is no link, `forbidden_host` for what is not allowed.
        """
        if len(text) > MAX_URL or _UNUSABLE.search(text):
            raise LinkError(BAD_ROW, "the url is no link: too long, or with spaces, control characters or backslashes")
        try:
            url = parsed(text)
            host, port = url.raw_host, url.port
        except ValueError:
            raise LinkError(BAD_ROW, "the url is no link") from None
        if url.scheme == "file":
            return self._check_file(url)
        if url.scheme not in {"http", "https"} or not host:
            raise LinkError(FORBIDDEN, f"links must be https: {_clip(url.scheme or text)!r} is not fetched")
        if url.raw_user is not None or url.raw_password is not None:
            raise LinkError(FORBIDDEN, "the link carries credentials")
        if not (self._is_named(host, port) or (is_discord(host) and (url.scheme, port) == ("https", 443))):
            raise LinkError(FORBIDDEN, f"{_clip(host)}:{port} ({url.scheme}) is not among the allowed hosts")
        return url.with_fragment(None)

    def check_onward(self, text: str) -> URL:
        """As `check`, for a link that a server names: it leads to no local file, and what is no link is its failure.

        Raises:
            LinkError: `forbidden_host`, `fetch_failed`.
        """
        try:
            url = self.check(text)
        except LinkError as error:
            raise LinkError(FAILED if error.kind == BAD_ROW else error.kind, error.detail) from None
        if url.scheme == "file":
            raise LinkError(FORBIDDEN, "a server's link must not be to a local file")
        return url

    def lane(self, url: URL) -> Lane:
        """The lane of the rate budget that a checked link travels on."""
        host = url.raw_host or ""
        return Lane(f"{host}:{url.port}", discord=is_discord(host))

    def may_be_private(self, host: str) -> bool:
        """Whether a name may lead to a private, loopback or link-local address: only by the operator's word."""
        return any(name == host for name, _ in self.allowed)

    def open_file(self, url: URL) -> BinaryIO:
        """The regular file that a checked `file:` link names, open for reading.

        Raises:
            LinkError: outside the root, by whatever way; missing, unreadable, not a regular file.
        """
        if self.file_root is None:
            raise LinkError(FORBIDDEN, _NO_ROOT)
        path = Path(os.path.realpath(_file_name(url)))
        root = os.path.realpath(self.file_root)
        if not path.is_relative_to(root):
            raise LinkError(FORBIDDEN, "the file is outside MODBOT_FILE_ROOT")
        try:
            file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - handed to the caller
        except OSError as error:
            raise LinkError(FAILED, f"the file cannot be read ({error.strerror})") from None
        # What was opened is judged, not what its name led to a moment before.
        opened = Path(f"/proc/self/fd/{file.fileno()}").readlink()
        if opened.is_relative_to(root) and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        raise LinkError(FORBIDDEN, "not a regular file below MODBOT_FILE_ROOT")

    def _is_named(self, host: str, port: int | None) -> bool:
        return (host, None) in self.allowed or (host, port) in self.allowed

    def _check_file(self, url: URL) -> URL:
        if "\0" in _file_name(url):
            raise LinkError(BAD_ROW, "the url is no link: a file's name has no null bytes")
        if url.raw_host not in {None, "", "localhost"}:
            raise LinkError(FORBIDDEN, "a file: link must be to this machine")
        if self.file_root is None:
            raise LinkError(FORBIDDEN, _NO_ROOT)
        return url


def parsed(text: str) -> URL:
    """The text as a link. Raises ValueError."""
    try:
        return URL(text)
    except IndexError:  # yarl's own word for `https://[::1]@`
        raise ValueError("no host") from None


def is_discord(host: str) -> bool:
    """Whether the host hands out Discord's files."""
    return host in DISCORD_CDN_HOSTS


def has_lapsed(url: URL, now: float) -> bool:
    """Whether the link's signature says that it has ended: its `ex`, hex Unix seconds, is not after `now`."""
    try:
        return int(url.query.get("ex", ""), 16) <= now
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and does not carry another that is not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:  # what is reserved, retired or carries an IPv4 address in another way
            return False
    return ip.is_global and not ip.is_multicast


def _entry(text: str) -> tuple[str, int | None]:
    bare_v6 = text.count(":") > 1 and not text.startswith("[")
    try:
        url = parsed(f"http://[{text}]" if bare_v6 else f"http://{text}")
        host, port = url.raw_host, url.explicit_port
    except ValueError:
        host, port = None, None
    if not host or not _can_be_host(host) or _UNUSABLE.search(text) or _says_more(url):
        raise SettingError(
            f"{text!r} is neither a host nor host:port",
            where="MODBOT_ALLOW_HOSTS or --allow-host",
            remedy="Give names such as images.example.org or 127.0.0.1:8080, without https://, path or `*`; in "
            "MODBOT_ALLOW_HOSTS separated by commas.",
        )
    return host, port


def _says_more(url: URL) -> bool:
    """Whether it names more than a host and a port."""
    return url.raw_path != "/" or url.raw_user is not None or bool(url.raw_query_string or url.raw_fragment)


def _can_be_host(name: str) -> bool:
    """Whether any link can name it: an address, or a name as links spell it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return _NAME.fullmatch(name) is not None
    return True


def _file_name(url: URL) -> str:
    """The file that a link names, whatever its bytes: those that are no UTF-8 come as surrogates, as `os` has them."""
    return os.fsdecode(unquote_to_bytes(url.raw_path))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO must not hold us up


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
