"""What servers do on purpose, and what comes of it: an image, or a record that says why there is none."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yarl

from modbot.errors import RateLimitError
from modbot.fetch.client import Fetcher, Timeouts
from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.hosts import HostPolicy
from modbot.fetch.store import Store, Stored
from modbot.records.index import IndexRow
from modbot.records.p1 import ERROR_KINDS, RecordError
from tests.misbehaving import (
    DATA,
    TOKEN,
    Behaviour,
    ChangingDns,
    FakeDiscord,
    Misbehaving,
    Said,
    answer,
    breaks_off,
    endless,
    gzip_bomb,
    image,
    limited,
    raw,
    redirect,
    resets,
    silent,
    slow,
    wrong_length,
)

STORED = Stored(hashlib.sha256(DATA).hexdigest(), len(DATA))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
QUICK = Timeouts(connect=0.5, read=0.5, total=1.5)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as running:
        yield running


@asynccontextmanager
async def fetching(server: Misbehaving, folder: Path, **options: Any) -> AsyncIterator[Fetcher]:  # noqa: ANN401
    """A fetcher with all that it needs; `options` are a Fetcher's."""
    settings: dict[str, Any] = {
        "store": Store(folder),
        "hosts": HostPolicy.of([server.host]),
        "backoff": 0.01,
        "timeouts": QUICK,
    }
    async with (
        asyncio.timeout(30),
        LocalCoordinator(qps=math.inf, concurrency=8) as coordinator,
        Fetcher(coordinator=coordinator, **(settings | options)) as fetcher,
    ):
        yield fetcher


def fetch(server: Misbehaving, folder: Path, *links: str, **options: Any) -> list[Stored | RecordError]:  # noqa: ANN401
    """What comes of the links, fetched one after the other; paths are the server's."""

    async def work() -> list[Stored | RecordError]:
        async with fetching(server, folder, **options) as fetcher:
            whole = [server.url(link) if re.match("/(?!/)", link) else link for link in links]
            return [await fetcher.fetch(IndexRow(row=0, url=link)) for link in whole]

    results = asyncio.run(work())
    for result in results:
        assert isinstance(result, Stored) or (result.kind in ERROR_KINDS and "\n" not in result.detail)
    assert not list(folder.rglob("*.tmp"))
    return results


def kinds(results: list[Stored | RecordError]) -> list[str | None]:
    return [None if isinstance(result, Stored) else result.kind for result in results]


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(500),
        answer(502),
        answer(503, Retry_After="0.1"),
        answer(408),
        resets(),
        resets(b"HTTP/1.1 200 OK\r\nContent-Length: 3400\r\n\r\n" + DATA[:500]),
        breaks_off(DATA, 0),
        breaks_off(DATA, len(DATA) - 1),
        raw(b""),
        raw(CHUNKED + b"10\r\nabc"),
        silent(0.8),
        slow(DATA, pieces=100, pause=0.05),
        limited(0.2, scope="user"),
        limited(0.2, scope="shared", said="body"),
        limited(0.2, scope="global", said="both"),
        limited(0.2, said="date"),
    ],
    ids=lambda behaviour: behaviour.__qualname__.partition(".")[0],
)
def test_what_passes_costs_no_image(server: Misbehaving, tmp_path: Path, behaviour: Behaviour) -> None:
    server.on("/a", behaviour, behaviour, image(DATA))
    assert fetch(server, tmp_path, "/a") == [STORED]
    assert server.gets == {"/a": 3}


@pytest.mark.parametrize(
    ("behaviour", "kind", "requests"),
    [
        (resets(), "fetch_failed", 2),
        (breaks_off(DATA, 100), "fetch_failed", 2),
        (slow(DATA, pieces=100, pause=0.05), "timeout", 2),
        (gzip_bomb(10_000_000), "fetch_failed", 1),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n"), "too_large", 1),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"), "fetch_failed", 2),
        (endless(b"HTTP/1.1 200 OK\r\nX-Long: "), "fetch_failed", 2),
        (
            endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + bytes(1024) + b"\r\n"),
            "too_large",
            1,
        ),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout", 2),
        (redirect("/a"), "fetch_failed", 6),
        (redirect("http://169.254.169.254/latest/meta-data"), "forbidden_host", 1),
        (redirect("http://[fe80::1%25eth0]/"), "forbidden_host", 1),
        (redirect("http://2130706433/"), "forbidden_host", 1),
        (redirect("http://127.1/"), "forbidden_host", 1),
        (redirect("https://cdn.discordapp.com.evil.example/a"), "forbidden_host", 1),
        (redirect("gopher://127.0.0.1/"), "forbidden_host", 1),
        (redirect("data:image/png;base64,AAAA"), "forbidden_host", 1),
        (answer(200), "fetch_failed", 2),
        (answer(200, b"<title>Log in</title>", Content_Type="text/html; charset=utf-8"), "not_an_image", 1),
        (answer(204), "fetch_failed", 1),
        (answer(206, DATA, Content_Range="bytes 0-3399/9999"), "fetch_failed", 1),
        (answer(304), "fetch_failed", 1),
        (answer(300, Location="/b"), "fetch_failed", 1),
    ],
    ids=lambda value: value.__qualname__.partition(".")[0] if callable(value) else str(value),
)
def test_what_does_not_pass_is_a_record(
    server: Misbehaving, tmp_path: Path, behaviour: Behaviour, kind: str, requests: int
) -> None:
    server.on("/a", behaviour)
    begin = time.monotonic()
    assert kinds(fetch(server, tmp_path, "/a", max_bytes=500_000, attempts=2)) == [kind]
    assert server.gets == {"/a": requests}
    assert time.monotonic() - begin < 10


def test_more_than_was_promised_is_not_taken_for_the_next_answer(server: Misbehaving, tmp_path: Path) -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsmuggle"
    server.on("/long", wrong_length(DATA + smuggled, len(DATA)))
    assert fetch(server, tmp_path, "/long", "/next") == [STORED] * 2
    assert server.gets == {"/long": 1, "/next": 1}


@pytest.mark.parametrize("said", ["missing", "garbage"])
def test_a_429_that_does_not_say_how_long_is_given_a_second(server: Misbehaving, tmp_path: Path, said: Said) -> None:
    server.on("/a", limited(9.0, said=said), image(DATA))
    assert fetch(server, tmp_path, "/a") == [STORED]
    first, second = (arrival.at for arrival in server.arrivals)
    assert 1.0 <= second - first < 3.0


# --- redirects and names ---


def test_nothing_of_ours_goes_to_another_host(server: Misbehaving, tmp_path: Path) -> None:
    with Misbehaving() as other:
        server.on("/a", answer(302, Location=other.url("/b"), Set_Cookie="session=5ec2e7; Path=/"))
        hosts = HostPolicy.of([server.host, other.host])
        assert fetch(server, tmp_path, "/a?hm=5ec2e7", "/again", hosts=hosts, token=TOKEN) == [STORED] * 2
        assert [arrival.path for arrival in other.arrivals] == ["/b"]
        for arrival in (*other.arrivals, *server.arrivals):
            assert not {name.lower() for name in arrival.headers} & {"authorization", "cookie", "referer"}
            assert TOKEN not in str(arrival.headers)
        assert "5ec2e7" not in str(other.arrivals)


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    """A server under two addresses, of which 127.0.0.2 counts as public."""
    monkeypatch.setattr("modbot.fetch.resolver.is_public", lambda address: address == "127.0.0.2")
    with Misbehaving(addresses=("127.0.0.1", "127.0.0.2")) as running:
        yield running


@pytest.mark.parametrize(
    ("answers", "came_to"),
    [
        ([["127.0.0.2"]], ["127.0.0.2"]),
        ([["127.0.0.1"]], []),
        ([["127.0.0.1", "127.0.0.2"]], ["127.0.0.2"]),
        # What was resolved and judged is connected to: the next answer is nobody's business.
        ([["127.0.0.2"], ["127.0.0.1"]], ["127.0.0.2"]),
    ],
)
def test_what_was_resolved_and_judged_is_connected_to(
    two_addresses: Misbehaving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[list[str]],
    came_to: list[str],
) -> None:
    names = ChangingDns(images_example=answers)
    monkeypatch.setattr("modbot.fetch.client.ThreadedResolver", lambda: names)
    monkeypatch.setattr(HostPolicy, "may_be_private", lambda *_: False)
    link = f"http://images.example:{two_addresses.port}/a"
    hosts = HostPolicy.of(["images.example"])
    assert kinds(fetch(two_addresses, tmp_path, link, hosts=hosts)) == [None if came_to else "forbidden_host"]
    assert [arrival.address for arrival in two_addresses.arrivals] == came_to
    assert names.asked == ["images.example"]


def test_a_name_that_turns_private_is_no_longer_fetched_from(
    two_addresses: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ChangingDns(images_example=[["127.0.0.2"], ["127.0.0.1"]])
    monkeypatch.setattr("modbot.fetch.client.ThreadedResolver", lambda: names)
    monkeypatch.setattr(HostPolicy, "may_be_private", lambda *_: False)
    two_addresses.on("/a", answer(200, DATA, Connection="close"))
    hosts = HostPolicy.of(["images.example"])

    async def work() -> list[Stored | RecordError]:
        async with fetching(two_addresses, tmp_path, hosts=hosts) as fetcher:
            results = []
            for path in ("a", "b"):
                link = f"http://images.example:{two_addresses.port}/{path}"
                results.append(await fetcher.fetch(IndexRow(row=0, url=link)))
                assert fetcher._opened is not None
                fetcher._opened.connector.clear_dns_cache()  # type: ignore[union-attr] # a TCPConnector
            return results

    assert kinds(asyncio.run(work())) == [None, "forbidden_host"]
    assert [arrival.address for arrival in two_addresses.arrivals] == ["127.0.0.2"]


# --- links that are meant to be read in two ways ---


@pytest.mark.parametrize(
    "link",
    [
        "https://cdn.discordapp.com@evil.example/a",
        "https://cdn.discordapp.com%40evil.example/a",
        "https://evil.example#@cdn.discordapp.com/a",
        "https://evil.example?@cdn.discordapp.com/a",
        "https://evil.example;cdn.discordapp.com/a",
        "https://cdn.discordapp.com.evil.example/a",
        "https://cdn.discordapp.com:80/a",
        "https://cdn.discordapp.com:99999/a",
        "https://cdn.discordapp.com:-1/a",
        "https://user@cdn.discordapp.com/a",
        "https://:word@cdn.discordapp.com/a",
        "https://cdn。discordapp。com.evil.example/a",
        "https://cdn.discordapp.com\u2024evil.example/a",
        "https://xn--cdn-.discordapp.com/a",
        "https://[::1]/a",
        "https://[fe80::1%25eth0]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://0x7f000001/a",
        "https://0177.0.0.1/a",
        "https://127.0.0.1./a",
        "https:///cdn.discordapp.com/a",
        "https:cdn.discordapp.com/a",
        "//cdn.discordapp.com/a",
        "http://cdn.discordapp.com/a",
        "ftp://cdn.discordapp.com/a",
        "javascript:alert(1)",
        "https://cdn.discordapp.com/a\r\nX-Injected: 1",
        "https://cdn.discordapp.com/a b",
        "https://cdn.discordapp.com\\@evil.example/a",
        "https://cdn.discordapp.com/" + "a" * 1_000_000,
        "https://" + "a" * 1_000_000 + "/",
        "https://" + "a." * 4_000 + "example/",
        "\u202ehttps://cdn.discordapp.com/a",
        "",
        " ",
    ],
    ids=lambda link: re.sub(r"[^\x21-\x7e]", "_", link)[:60],
)
def test_a_link_that_leads_astray_costs_no_request(
    server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    names = ChangingDns()
    monkeypatch.setattr("modbot.fetch.client.ThreadedResolver", lambda: names)
    [result] = fetch(server, tmp_path, link)
    assert isinstance(result, RecordError)
    assert result.kind in {"bad_row", "forbidden_host"}
    assert len(result.detail) < 400
    assert result.attempts == 0
    assert names.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/a%0d%0aX-Injected:%201",
        "/a%0AX-Injected:1",
        "/a?b=%0d%0aX-Injected:%201",
        "/ä/絵.png?ä=絵",
        "/%E3%81",
        "/%zz",
        "/a//b/../../c",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/a;b=c?d=e&d=f&&=",
        "/%00",
        "//evil.example/a",
    ],
)
def test_whatever_a_path_holds_is_one_request_line(server: Misbehaving, tmp_path: Path, path: str) -> None:
    assert fetch(server, tmp_path, server.url("") + path) == [STORED]
    [arrival] = server.arrivals
    assert "X-Injected" not in arrival.headers


def test_a_named_host_is_the_same_however_it_is_written(server: Misbehaving, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "modbot.fetch.client.ThreadedResolver", lambda: ChangingDns(**{"xn--fsq_example": [["127.0.0.1"]]})
        )
        hosts = HostPolicy.of([f"例.example:{server.port}"])
        assert hosts.allowed == {(yarl.URL("http://例.example").raw_host, server.port)}
        links = [f"http://例.example:{server.port}/a", f"http://XN--FSQ.Example:{server.port}/b"]
        assert fetch(server, tmp_path, *links, hosts=hosts) == [STORED] * 2
    assert server.gets == {"/a": 1, "/b": 1}


# --- contents that are none ---


def test_an_empty_body_is_no_image(server: Misbehaving, tmp_path: Path) -> None:
    server.on("/empty", answer(200))
    server.on("/until the end", raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"))
    assert kinds(fetch(server, tmp_path, "/empty", "/until%20the%20end")) == ["fetch_failed", "fetch_failed"]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("encoding", ["br", "gzip", "zstd", "deflate", "identity, gzip", "nonsense"])
def test_what_comes_encoded_is_neither_unpacked_nor_stored(server: Misbehaving, tmp_path: Path, encoding: str) -> None:
    server.on("/a", answer(200, DATA, Content_Encoding=encoding))
    assert kinds(fetch(server, tmp_path, "/a")) == ["fetch_failed"]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


# --- Discord ---


@pytest.fixture
def discord(server: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> FakeDiscord:
    monkeypatch.setattr("modbot.fetch.hosts.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setattr("modbot.records.index.DISCORD_CDN_HOSTS", frozenset({"127.0.0.1"}))
    return FakeDiscord(server, limit=3, window=0.5)


def reread(
    server: Misbehaving, discord: FakeDiscord, folder: Path, rows: list[IndexRow], *, token: str | None = TOKEN
) -> list[Stored | RecordError]:
    server.otherwise = discord

    async def work() -> list[Stored | RecordError]:
        async with fetching(server, folder, token=token, discord_api=discord.api) as fetcher:
            return list(await asyncio.gather(*map(fetcher.fetch, rows)))

    return asyncio.run(work())


def _row(discord: FakeDiscord, message: str, attachment: str, *, lasts: float = 3_600.0) -> IndexRow:
    link = discord.link("11", attachment, lasts=lasts)
    return IndexRow(row=0, url=link, channel_id="11", message_id=message, attachment_id=attachment)


def test_links_expire_messages_are_deleted_and_the_route_is_never_overrun(
    server: Misbehaving, discord: FakeDiscord, tmp_path: Path
) -> None:
    pictures = {str(i): DATA + bytes([i]) for i in range(20)}
    for i in range(10):
        discord.post("11", str(100 + i), {str(n): pictures[str(n)] for n in (2 * i, 2 * i + 1)})
    rows = [_row(discord, str(100 + int(name) // 2), name, lasts=-60) for name in pictures]
    discord.delete("11", "104")
    begin = time.monotonic()
    results = reread(server, discord, tmp_path, rows)
    assert kinds(results) == ["expired" if i in {8, 9} else None for i in range(20)]
    for result, data in zip(results, pictures.values(), strict=True):
        assert isinstance(result, RecordError) or result.sha256 == hashlib.sha256(data).hexdigest()
    reads = _reads(server)
    assert sorted(reads) == [f"/api/v10/channels/11/messages/{100 + i}" for i in range(10)]
    assert set(reads.values()) == {1}
    assert discord.too_early == []
    assert time.monotonic() - begin >= 1.5  # ten reads at three in half a second


def _reads(server: Misbehaving) -> dict[str, int]:
    return {path: count for path, count in server.gets.items() if path.startswith("/api/")}


def test_a_link_that_is_forged_or_has_expired_unseen_is_refreshed(
    server: Misbehaving, discord: FakeDiscord, tmp_path: Path
) -> None:
    discord.post("11", "100", {"1": DATA})
    row = _row(discord, "100", "1")
    assert row.url is not None
    forged = IndexRow(row=0, url=row.url[:-4] + "0000", channel_id="11", message_id="100", attachment_id="1")
    assert reread(server, discord, tmp_path, [forged]) == [STORED]
    assert server.gets["/attachments/11/1/1.png"] == 2


def test_a_wrong_token_is_tried_once(server: Misbehaving, discord: FakeDiscord, tmp_path: Path) -> None:
    for i in range(4):
        discord.post("11", str(100 + i), {str(i): DATA})
    rows = [_row(discord, str(100 + i), str(i), lasts=-60) for i in range(4)]
    with pytest.raises(RateLimitError, match="DISCORD_BOT_TOKEN"):
        reread(server, discord, tmp_path, rows, token="another")  # noqa: S106 - not one
    assert sum(_reads(server).values()) <= len(rows)
