from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

import msgspec
import pytest

from modbot.errors import BusyError, InputError, InterruptedRunError, ModbotError, RateLimitError, StorageError
from modbot.fetch import budget
from modbot.fetch import coordinator as module
from modbot.fetch.budget import Answer, Lane, Saved, Ticket
from modbot.fetch.coordinator import Coordinator, LocalCoordinator, Outcome
from modbot.fetch.remote import RemoteCoordinator, serve
from modbot.fetch.store import Stored
from modbot.fetch.turn import Turn
from modbot.files.processes import owner
from modbot.records.p1 import RecordError
from modbot.records.progress import Adjustment

HERE = Lane("127.0.0.1:8080")
CDN = Lane("cdn.discordapp.com:443", discord=True)
API = Lane("discord.com:443", discord=True, route="GET /channels/messages", major="1")
IMAGE = Outcome(stored=Stored("ab" * 32, 3))
FAILURE = Outcome(error=RecordError(kind="timeout", detail="the server took too long", attempts=4))


def run(work: Coroutine[object, object, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await work

    asyncio.run(in_time())


def local(qps: float = math.inf, concurrency: int = 4, state: Path | None = None) -> LocalCoordinator:
    return LocalCoordinator(qps=qps, concurrency=concurrency, state=state)


async def settled_soon() -> None:
    """Long enough for everything that can go on to have gone on."""
    await asyncio.sleep(0.05)


def start(work: Awaitable[Outcome | None]) -> asyncio.Task[Outcome | None]:
    async def call() -> Outcome | None:
        return await work

    return asyncio.get_running_loop().create_task(call())


# Each law holds for tasks of one process and for workers of several alike.


async def one_at_it_and_the_others_get_what_came(c: Coordinator, others: list[Coordinator]) -> None:
    assert await c.claim("k") is None
    waiting = [start(other.claim("k")) for other in others]
    await settled_soon()
    assert not any(task.done() for task in waiting)
    c.settle("k", IMAGE)
    assert [await task for task in waiting] == [IMAGE] * len(waiting)
    assert await c.claim("k") is None  # an image is the store's to remember
    c.settle("k", FAILURE)
    assert await others[0].claim("k") == FAILURE  # a failure is remembered here
    assert await c.claim("other") is None
    c.settle("other", None)


async def a_claim_given_up_goes_to_who_waits_longest(c: Coordinator, others: list[Coordinator]) -> None:
    assert await c.claim("k") is None
    first = start(others[0].claim("k"))
    await settled_soon()
    second = start(others[1].claim("k"))
    await settled_soon()
    c.settle("k", None)
    assert await first is None
    await settled_soon()
    assert not second.done()
    others[0].settle("k", IMAGE)
    assert await second == IMAGE


async def a_waiter_that_leaves_holds_nobody_up(c: Coordinator, others: list[Coordinator]) -> None:
    assert await c.claim("k") is None
    leaving, staying = start(others[0].claim("k")), start(others[1].claim("k"))
    await settled_soon()
    leaving.cancel()
    c.settle("k", None)
    assert await staying is None
    others[1].settle("k", None)
    tickets = [await c.admit(HERE) for _ in range(4)]
    gone = asyncio.ensure_future(others[0].admit(HERE))
    patient = asyncio.ensure_future(others[1].admit(HERE))
    await settled_soon()
    gone.cancel()
    c.report(tickets[0], None)
    others[1].report(await patient, Answer(200))
    for ticket in tickets[1:]:
        c.report(ticket, Answer(200))
    for ticket in [await c.admit(HERE) for _ in range(4)]:  # nothing leaked away
        c.report(ticket, None)


async def a_refusal_reaches_everyone_who_waits(c: Coordinator, others: list[Coordinator]) -> None:
    tickets = [await c.admit(API), *[await c.admit(HERE) for _ in range(3)]]
    waiting = [asyncio.ensure_future(other.admit(CDN)) for other in others]
    await settled_soon()
    c.report(tickets[0], Answer(401))
    for task in waiting:
        with pytest.raises(RateLimitError, match=r"DISCORD_BOT_TOKEN: .*\n"):
            await task
    for ticket in tickets[1:]:
        c.report(ticket, None)


Law = Callable[[Coordinator, list[Coordinator]], Coroutine[object, object, None]]
LAWS: list[Law] = [
    one_at_it_and_the_others_get_what_came,
    a_claim_given_up_goes_to_who_waits_longest,
    a_waiter_that_leaves_holds_nobody_up,
    a_refusal_reaches_everyone_who_waits,
]


@pytest.mark.parametrize("law", LAWS)
def test_in_one_process(law: Law) -> None:
    async def work() -> None:
        async with local() as c:
            await law(c, [c, c])

    run(work())


@pytest.mark.parametrize("law", LAWS)
def test_over_the_socket(law: Law) -> None:
    async def work() -> None:
        with serve(local()) as path:
            async with RemoteCoordinator(path) as a, RemoteCoordinator(path) as b, RemoteCoordinator(path) as c:
                await law(a, [b, c])

    run(work())


def test_what_is_handed_over_in_the_moment_of_leaving_is_given_back() -> None:
    async def work() -> None:
        async with local(concurrency=1) as c:
            ticket = await c.admit(HERE)
            assert await c.claim("k") is None
            admission, claim = asyncio.ensure_future(c.admit(HERE)), asyncio.ensure_future(c.claim("k"))
            await settled_soon()
            c.report(ticket, None)
            c.settle("k", None)
            admission.cancel()  # both have it already, and do not know
            claim.cancel()
            await asyncio.gather(admission, claim, return_exceptions=True)
            c.report(await c.admit(HERE), None)
            assert await c.claim("k") is None
            c.settle("k", None)

    run(work())


def test_a_lost_worker_frees_what_it_held() -> None:
    async def work() -> None:
        with serve(local(concurrency=1)) as path:
            async with RemoteCoordinator(path) as survivor:
                async with RemoteCoordinator(path) as lost:
                    assert await lost.claim("k") is None
                    await lost.admit(HERE)
                    claim, admission = start(survivor.claim("k")), asyncio.ensure_future(survivor.admit(HERE))
                    await settled_soon()
                    assert not claim.done()
                    assert not admission.done()
                assert await claim is None
                survivor.report(await admission, None)
                survivor.settle("k", None)

    run(work())


def test_a_lost_parent_is_told_to_every_call() -> None:
    async def work() -> None:
        with serve(local(concurrency=1)) as path:
            worker = RemoteCoordinator(path)
            await worker.__aenter__()
            ticket = await worker.admit(HERE)
            waiting = asyncio.ensure_future(worker.admit(HERE))
            await settled_soon()
        with pytest.raises(InterruptedRunError):
            await waiting
        with pytest.raises(InterruptedRunError):
            worker.report(ticket, None)
        with pytest.raises(InterruptedRunError):
            await worker.claim("k")
        await worker.__aexit__()
        with pytest.raises(InterruptedRunError):
            await RemoteCoordinator(path).__aenter__()
        assert not path.parent.exists()

    run(work())


def test_the_socket_is_this_users_alone() -> None:
    with serve(local()) as path:
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_long_way_to_the_temporary_files_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = tmp_path / "あ" / ("x" * 100)
    far.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(far))

    async def work() -> None:
        with serve(local()) as path:
            assert path.parent.stat().st_mode & 0o777 == 0o700
            async with RemoteCoordinator(path) as worker:
                worker.report(await worker.admit(HERE), Answer(200))
        assert not path.parent.exists()

    run(work())
    assert list(far.iterdir()) == []


SERVES = """
import math, time
from modbot.fetch.coordinator import LocalCoordinator
from modbot.fetch.remote import serve

with serve(LocalCoordinator(qps=math.inf, concurrency=1)) as path:
    print(path, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder that a socket's path has room in, which `tmp_path` may have not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_what_a_killed_run_leaves_is_swept_by_the_next(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    mine = owner()
    elsewhere = short_path / f"modbot-{'0' * 12}.1.2-of_a_run_elsewhere"
    elsewhere.mkdir()
    linked = short_path / f"modbot-{mine}0-linked"  # as a process that ended long ago
    linked.symlink_to(elsewhere)
    command = [sys.executable, "-c", SERVES]
    environment = {**os.environ, "TMPDIR": str(short_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip()).parent
        with serve(local()) as path:
            assert {*short_path.iterdir()} == {elsewhere, linked, left, path.parent}
        killed.kill()
    assert {*short_path.iterdir()} == {elsewhere, linked, left}
    with serve(local()) as path:
        assert {*short_path.iterdir()} == {elsewhere, linked, path.parent}


def test_no_place_for_the_socket_is_told_by_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="nowhere"), serve(local()):
        pytest.fail("served from nowhere")


def test_requests_are_paced() -> None:
    async def work() -> None:
        async with local(qps=50.0) as c:
            begin = time.monotonic()

            async def request() -> float:
                c.report(await c.admit(HERE), Answer(200))
                return time.monotonic() - begin

            times = await asyncio.gather(*(request() for _ in range(11)))
        assert times == sorted(times)  # first come, first served
        assert 0.2 <= times[-1] < 0.6

    run(work())


def test_a_held_lane_does_not_hold_up_another() -> None:
    async def work() -> None:
        async with local() as c:
            c.report(await c.admit(HERE), Answer(429, retry_after=0.5))
            held = asyncio.ensure_future(c.admit(HERE))
            begin = time.monotonic()
            c.report(await c.admit(Lane("127.0.0.1:9090")), Answer(200))
            assert time.monotonic() - begin < 0.4
            c.report(await held, None)
            assert time.monotonic() - begin > 0.4

    run(work())


def test_the_state_is_kept_for_the_next_process(tmp_path: Path) -> None:
    state = tmp_path / "status" / "budget.json"

    async def first() -> None:
        async with local(state=state) as c:
            c.report(await c.admit(HERE), Answer(200))
            assert not state.exists()
            c.report(await c.admit(HERE), Answer(429, retry_after=0.6))
            await settled_soon()
            assert msgspec.json.decode(state.read_bytes(), type=Saved).holds.keys() == {HERE.host}

    async def second() -> None:
        begin = time.monotonic()
        async with local(state=state) as c:
            c.report(await c.admit(HERE), Answer(200))
            assert [a.cause for a in c.adjustments] == ["restored"]
        assert time.monotonic() - begin > 0.2

    run(first())
    run(second())


def turn_of(folder: Path, profile: str) -> tuple[Path, Turn]:
    """The budget's state of a profile, and its claim to the turn that all of them share."""
    states = {name: folder / name / "budget.json" for name in ("a", "b")}
    return states[profile], Turn(folder / "discord.lease", f"modbot fetch {profile}", lambda: list(states.values()))


def test_one_run_at_a_time_asks_discord_and_others_may_ask_elsewhere(tmp_path: Path) -> None:
    async def work() -> None:
        state_a, turn_a = turn_of(tmp_path, "a")
        state_b, turn_b = turn_of(tmp_path, "b")
        async with LocalCoordinator(qps=50.0, concurrency=4, state=state_a, turn=turn_a) as a:
            a.report(await a.admit(HERE), Answer(200))
            assert not (tmp_path / "discord.lease").exists()  # a run that asks nothing of Discord keeps nobody away
            a.report(await a.admit(CDN), Answer(200))
            async with LocalCoordinator(qps=50.0, concurrency=4, state=state_b, turn=turn_b) as b:
                b.report(await b.admit(HERE), Answer(200))
                for _ in range(2):
                    with pytest.raises(
                        BusyError, match=r"another run is fetching from Discord: held by 'modbot fetch a'"
                    ):
                        await b.admit(CDN)
            a.report(await a.admit(CDN), Answer(200))
        assert not (tmp_path / "discord.lease").exists()

    run(work())


def test_who_takes_the_turn_learns_what_the_run_before_was_told(tmp_path: Path) -> None:
    async def work() -> None:
        state_a, turn_a = turn_of(tmp_path, "a")
        state_b, turn_b = turn_of(tmp_path, "b")
        async with LocalCoordinator(qps=50.0, concurrency=4, state=state_b, turn=turn_b) as b:  # begun before
            async with LocalCoordinator(qps=50.0, concurrency=4, state=state_a, turn=turn_a) as a:
                a.report(await a.admit(CDN), Answer(429, retry_after=0.8))
                told = time.monotonic()
            ticket = await b.admit(CDN)
            assert time.monotonic() - told >= 0.75
            assert [(x.cause, x.after.qps) for x in b.adjustments] == [("restored", 4.0)]
            b.report(ticket, Answer(200))

    run(work())


def test_a_ticket_that_came_too_late_to_a_worker_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    admit = LocalCoordinator.admit
    given: list[Ticket] = []

    async def admit_late(self: LocalCoordinator, lane: Lane) -> Ticket:
        ticket = await admit(self, lane)
        given.append(ticket)
        return ticket if len(given) > 1 else msgspec.structs.replace(ticket, until=time.monotonic() - 1)

    async def work() -> None:
        monkeypatch.setattr(LocalCoordinator, "admit", admit_late)
        with serve(local(concurrency=1)) as path:
            async with RemoteCoordinator(path) as worker:
                ticket = await worker.admit(HERE)  # the only one at a time: the late one is back
                assert [each.id for each in given] == [1, ticket.id]
                worker.report(ticket, Answer(200))

    run(work())


def test_a_turn_that_was_taken_over_ends_the_run_and_a_worker_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        state, turn = turn_of(tmp_path, "a")
        with serve(LocalCoordinator(qps=50.0, concurrency=4, state=state, turn=turn)) as path:
            async with RemoteCoordinator(path) as worker:
                worker.report(await worker.admit(CDN), Answer(200))
                turn._lease._lost = True  # as the heartbeat finds out
                with pytest.raises(BusyError, match="taken over by another run"):
                    await worker.admit(CDN)
                worker.report(await worker.admit(HERE), Answer(200))

    run(work())


def test_a_run_that_ends_while_it_waits_for_the_turn_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "discord.lease").write_bytes(b'{"of": "another machine"}')

    async def work() -> None:
        state, turn = turn_of(tmp_path, "a")
        begin = time.monotonic()
        async with LocalCoordinator(qps=50.0, concurrency=4, state=state, turn=turn) as c:
            waiting = asyncio.ensure_future(c.admit(CDN))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert time.monotonic() - begin < 3

    run(work())
    assert (tmp_path / "discord.lease").exists()


def test_a_state_from_the_far_future_is_cut_for_good(tmp_path: Path) -> None:
    state = tmp_path / "budget.json"
    pace = '{"rate": {"qps": 2, "concurrency": 4}, "quiet_since": 1e300}'
    state.write_text(f'{{"holds": {{"discord": 1e300}}, "paces": {{"discord": {pace}}}, "of a later version": 1}}')

    async def work() -> None:
        async with local(state=state) as c:
            with pytest.raises(RateLimitError, match="left alone until"):
                await c.admit(CDN)
            c.report(await c.admit(HERE), Answer(200))

    run(work())
    kept = msgspec.json.decode(state.read_bytes(), type=Saved)
    assert 0 < kept.holds["discord"] - time.time() <= budget.LONGEST_HOLD_S
    assert 0 < kept.paces["discord"].quiet_since - time.time() <= budget.LONGEST_HOLD_S


def test_a_state_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    state = tmp_path / "status" / "budget.json"

    async def work() -> None:
        async with local(state=state) as c:
            state.mkdir(parents=True)
            c.report(await c.admit(HERE), Answer(429, retry_after=0.0))
            await settled_soon()
            await c.admit(HERE)
            pytest.fail("admitted after the state could not be written")

    with pytest.raises(StorageError):
        run(work())


FULL = StorageError("the disk is full", where="status/p1.events.jsonl")


def failing(error: Exception, *causes: str) -> Callable[[Adjustment], None]:
    def listen(adjustment: Adjustment) -> None:
        if adjustment.cause in causes:
            raise error

    return listen


def test_a_listener_that_fails_ends_the_run_by_its_own_error() -> None:
    async def work() -> None:
        with serve(LocalCoordinator(qps=50.0, concurrency=2, on_adjustment=failing(FULL, "http_429"))) as path:
            async with RemoteCoordinator(path) as a, RemoteCoordinator(path) as b:
                tickets = [await a.admit(HERE), await a.admit(HERE)]
                waiting = asyncio.ensure_future(b.admit(HERE))
                await settled_soon()
                a.report(tickets[0], Answer(429, retry_after=0.0))
                with pytest.raises(StorageError, match="the disk is full"):
                    await waiting
                assert await a.claim("k") is None  # the connection stands
                a.settle("k", None)
                with pytest.raises(StorageError, match="the disk is full"):
                    await a.admit(HERE)

    with pytest.raises(StorageError, match="the disk is full"):
        run(work())


def test_a_listener_that_fails_while_others_wait_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "QUIET_S", 0.3)
    told: list[str] = []

    def listen(adjustment: Adjustment) -> None:
        told.append(adjustment.cause)
        failing(FULL, "quiet")(adjustment)

    async def work() -> None:
        async with LocalCoordinator(qps=50.0, concurrency=4, on_adjustment=listen) as c:
            c.report(await c.admit(HERE), Answer(429, retry_after=0.05))
            waiting = [asyncio.ensure_future(c.admit(HERE)) for _ in range(4)]  # one every 0.25 s
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert told == ["http_429", "quiet"]
            assert isinstance(results[0], Ticket)
            assert results[-1] is FULL

    with pytest.raises(StorageError, match="the disk is full"):
        run(work())


def test_a_defect_of_the_listener_is_told_to_workers_and_raised_in_the_leader() -> None:
    async def work() -> None:
        with serve(
            LocalCoordinator(qps=50.0, concurrency=2, on_adjustment=failing(ZeroDivisionError(), "http_429"))
        ) as p:
            async with RemoteCoordinator(p) as worker:
                worker.report(await worker.admit(HERE), Answer(429, retry_after=0.0))
                with pytest.raises(ModbotError, match=r"leads this run failed \(ZeroDivisionError"):
                    await worker.admit(HERE)

    with pytest.raises(ZeroDivisionError):
        run(work())


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"holds": {"x": NaN}}',
        '{"holds": {"x": "NaN"}}',
        '{"holds": {"x": 1e999}}',
        '{"paces": {"x": {"rate": {"qps": 0, "concurrency": 1}, "quiet_since": 0}}}',
        '{"paces": {"x": {"rate": {"qps": -1, "concurrency": 1}, "quiet_since": 0}}}',
        '{"invalid": {"x": 1}}',
    ],
)
def test_a_state_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(InputError, match=r"budget\.json: not the state of a rate budget"):
        local(state=tmp_path / "budget.json")


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_OUTCOMES", 3)

    async def work() -> None:
        async with local() as c:
            for key in "abcd":
                assert await c.claim(key) is None
                c.settle(key, FAILURE)
            assert await c.claim("a") is None
            c.settle("a", None)
            assert await c.claim("d") == FAILURE

    run(work())
