from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from modbot.errors import SettingError
from modbot.fetch.budget import Lane
from modbot.fetch.hosts import ForbiddenAddressError, HostPolicy, LinkError, is_public
from modbot.fetch.resolver import GuardedResolver

POLICY = HostPolicy.of(["images.example.org", "127.0.0.1:8080", "[::1]:9000", "bücher.example"])


@pytest.mark.parametrize(
    ("link", "host", "discord"),
    [
        ("https://cdn.discordapp.com/attachments/1/2/a.png?ex=1&is=2&hm=3", "cdn.discordapp.com:443", True),
        ("https://CDN.Discordapp.com:443/a", "cdn.discordapp.com:443", True),
        ("https://media.discordapp.net/a#fragment", "media.discordapp.net:443", True),
        ("https://cdn。discordapp.com/a", "cdn.discordapp.com:443", True),  # an ideographic dot is a dot to DNS, too
        ("http://images.example.org/a", "images.example.org:80", False),
        ("https://images.example.org:8443/a", "images.example.org:8443", False),
        ("http://127.0.0.1:8080/a", "127.0.0.1:8080", False),
        ("http://[::1]:9000/a", "::1:9000", False),
        ("https://BÜCHER.example/a", "xn--bcher-kva.example:443", False),
    ],
)
def test_what_is_allowed(link: str, host: str, discord: bool) -> None:  # noqa: FBT001 - a table's column
    url = POLICY.check(link)
    assert POLICY.lane(url) == Lane(host, discord=discord)
    assert not url.fragment


@pytest.mark.parametrize(
    "link",
    [
        "http://cdn.discordapp.com/a",
        "https://cdn.discordapp.com:8443/a",
        "https://cdn.discordapp.com./a",
        "https://cdn.discordapp.com.evil.example/a",
        "https://evil.example/cdn.discordapp.com",
        "https://cdn.discordapp.com@evil.example/a",
        "https://user@cdn.discordapp.com/a",
        "https://user:word@images.example.org/a",
        "https://:@images.example.org/a",
        "https://evilcdn.discordapp.com/a",
        "http://127.0.0.1/a",
        "http://127.0.0.1:80/a",
        "http://127.1:8080/a",
        "http://2130706433:8080/a",
        "http://0x7f000001:8080/a",
        "http://0177.0.0.1:8080/a",
        "http://127.0.0.1.:8080/a",
        "http://[::ffff:127.0.0.1]:8080/a",
        "http://[::ffff:7f00:1]:8080/a",
        "http://localhost:8080/a",
        "http://0:8080/a",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1%25eth0]/a",
        "http://[::1]/a",
        "ftp://images.example.org/a",
        "gopher://images.example.org/a",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//cdn.discordapp.com/a",
        "cdn.discordapp.com/a",
        "https:///a",
        "https://xn--a.com/",
        "https:cdn.discordapp.com/a",
        "file:///etc/passwd",
        "",
    ],
)
def test_what_is_not(link: str) -> None:
    with pytest.raises(LinkError) as caught:
        POLICY.check(link)
    assert caught.value.kind == "forbidden_host"


@pytest.mark.parametrize(
    "link",
    [
        "https://cdn.discordapp.com\\@evil.example/a",
        "https://cdn.discordapp.com/a b",
        "https://cdn.discordapp.com/a\nHost: evil",
        "https://cdn.discordapp.com/a\tb",
        "https://cdn.discordapp.com/a\x00b",
        " https://cdn.discordapp.com/a",
        "https://cdn.discordapp.com:99999/a",
        "https://cdn.discordapp.com:0x1bb/a",
        "https://cdn.discordapp.com:-1/a",
        "http://[::1/a",
        "https://[::1]@",
        "https://cdn.discordapp.com/" + "a" * 9_000,
    ],
)
def test_what_is_no_link(link: str) -> None:
    with pytest.raises(LinkError) as caught:
        POLICY.check(link)
    assert caught.value.kind == "bad_row"


@pytest.mark.parametrize(
    "link", ["https://h.example/?ex=1&hm=5ec2e7", "x" * 400 + "://h", "https://u:5ec2e7@h.example/"]
)
def test_a_refusal_is_one_short_line_without_query_or_credentials(link: str) -> None:
    with pytest.raises(LinkError) as caught:
        POLICY.check(link)
    assert "5ec2e7" not in caught.value.detail
    assert len(caught.value.detail) < 200
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    "entry",
    [
        *("https://h.example", "h.example/path", "h.example:port", "u@h.example", "[::1]@", "", "h?q", "h#f"),
        *("a.example b.example", "a.example;b.example", "a.example\tb.example", "*.h.example", "h:80:90", "'h'"),
    ],
)
def test_an_entry_that_is_no_host_is_refused_by_name(entry: str) -> None:
    with pytest.raises(SettingError, match="MODBOT_ALLOW_HOSTS"):
        HostPolicy.of([entry])


@pytest.mark.parametrize("entry", ["h_1.example", "h.example.", "10.0.0.7", "::1", "[::1]:80", "日本.example", "h"])
def test_an_entry_is_whatever_a_link_can_name(entry: str) -> None:
    assert HostPolicy.of([entry]).allowed


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),  # noqa: S104 - an address that must be refused
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:808:808::", True),
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:0:7f00:1", False),
        ("fec0::1", False),
        ("100::1", False),
        ("4000::1", False),
        ("2001:db8::1", False),
        ("no address", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:  # noqa: FBT001 - a table's column
    assert is_public(address) is public


class _Fixed(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


def _resolve(host: str, *addresses: str) -> list[str]:
    found = asyncio.run(GuardedResolver(POLICY, _Fixed(*addresses)).resolve(host, 443))
    return [each["host"] for each in found]


def test_a_name_that_is_allowed_may_be_private_and_another_may_not() -> None:
    assert _resolve("images.example.org", "10.0.0.1") == ["10.0.0.1"]
    assert _resolve("cdn.discordapp.com", "10.0.0.1", "8.8.8.8", "::1") == ["8.8.8.8"]
    with pytest.raises(ForbiddenAddressError):
        _resolve("cdn.discordapp.com", "127.0.0.1", "::ffff:169.254.169.254")


# --- files ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "ä b.png").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "a").write_bytes(b"outside")
    return folder


def _read(root: Path | None, link: str) -> bytes:
    policy = HostPolicy.of(file_root=root)
    with policy.open_file(policy.check(link)) as file:
        return file.read()


def test_files_below_the_root_are_read(root: Path) -> None:
    assert _read(root, f"file://{root}/sub/%C3%A4%20b.png") == b"inside"
    assert _read(root, f"file://localhost{root}/sub/%C3%A4%20b.png") == b"inside"
    (root / "link").symlink_to("sub/ä b.png")
    assert _read(root, f"file://{root}/link") == b"inside"
    (root.parent / "alias").symlink_to(root)
    assert _read(root.parent / "alias", f"file://{root}/link") == b"inside"


@pytest.mark.parametrize("name", [b"bad\xff.png", b"100%FF.png", b"a?b#c+d;e.png", "日本 é.png".encode()])
def test_a_file_is_found_by_its_very_bytes(root: Path, name: bytes) -> None:
    path = root / os.fsdecode(name)
    path.write_bytes(name)
    assert _read(root, path.as_uri()) == name


def test_no_way_leads_out_of_the_root(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "out").symlink_to(root.parent)
    for link in (
        f"file://{root.parent}/secret",
        f"file://{root}/../secret",
        f"file://{root}/%2e%2e/secret",
        f"file://{root}/..%2Fsecret",
        f"file://{root}/sub/../../secret",
        f"file://{root}/link",
        f"file://{root}/out/secret",
        f"file://{root}/%FF/../../secret",
        f"file://{root}/%FF%2F..%2F..%2Fsecret",
        f"file://{root}2/a",
        f"file://evil.example{root}/sub/%C3%A4%20b.png",
        f"file:///proc/self/root{root.parent}/secret",
        "file:secret",
        "file:///etc/passwd",
    ):
        with pytest.raises(LinkError) as caught:
            _read(root, link)
        assert caught.value.kind == "forbidden_host", link


def test_a_root_that_is_not_set_allows_nothing(root: Path) -> None:
    with pytest.raises(LinkError, match="MODBOT_FILE_ROOT"):
        _read(None, f"file://{root}/sub/%C3%A4%20b.png")


@pytest.mark.parametrize("policy", [HostPolicy(), HostPolicy(file_root=Path("/"))])
@pytest.mark.parametrize(
    "link",
    [
        "file:///a%00b",
        "file://evil.example/a%00b",
        "file:///" + "a" * 9_000,
        "file:///a b",
        "file:///a\\b",
        "file://[a/b",
    ],
)
def test_what_is_no_link_is_none_whatever_the_policy(policy: HostPolicy, link: str) -> None:
    with pytest.raises(LinkError) as caught:
        policy.check(link)
    assert caught.value.kind == "bad_row"


def test_what_is_no_readable_file(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for name, kind in [
        ("pipe", "forbidden_host"),
        ("sub", "fetch_failed"),
        ("none", "fetch_failed"),
        ("a" * 300, "fetch_failed"),  # longer than a name can be
        ("a/" * 3_000, "fetch_failed"),  # longer than a path can be
        ("%00", "bad_row"),
    ]:
        with pytest.raises(LinkError) as caught:
            _read(root, f"file://{root}/{name}")
        assert caught.value.kind == kind, name
