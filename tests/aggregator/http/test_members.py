"""Who is let in, over HTTP and beside it: tokens, devices that are shut out or removed, copies, renewed credentials."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from aggregator.http.app_keys import CERTIFICATES
from aggregator.http.certificates import Certificates
from aggregator.http.tls import Tls
from aggregator.report.page import page
from aggregator.report.status import describe
from aggregator.report.tables import status_text
from aggregator.run.identity.copies import RENEWED_JUST_NOW_S
from aggregator.run.identity.sessions import SILENT_S
from aggregator.store.credentials import RENEW_AFTER_S
from aggregator.store.secrets import new_secret, secret_hash
from aggregator.store.uploads import Part
from tests.fakes.clock import FakeClock
from wire.codec import CONTENT_TYPE, decode, encode
from wire.messages import Enrol, History, Proof, Prove, Refusal, Renew, Task
from wire.proof import empty_history, is_certificate_proof, is_proof, new_nonce, next_history
from wire.routes import SESSION
from wire.run import RunInfo


class WallClock(FakeClock):
    """Seconds since 1970 that only a test moves."""

    def __init__(self) -> None:
        self.now = 1.8e9


@pytest.fixture
def wall_clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def server(make_folder: Any, start: Any, wall_clock: WallClock) -> Any:
    return await start(make_folder(), wall_clock)


async def enrol(server: Any, token: str, number: int = 1) -> tuple[int, bytes]:
    message = Enrol(protocol=1, token=token, install_id=f"{number:032x}", name=f"n-{number}", client_version="1")
    headers = {"Content-Type": CONTENT_TYPE}
    async with server.client.post("/v1/devices", data=encode(message), headers=headers) as response:
        return response.status, await response.read()


async def ask(board: Any, method: str, path: str, **headers: str) -> tuple[int, Refusal | None, Any]:
    """Status, refusal and headers of a call of a board."""
    async with board.client.request(method, path, headers={**board.headers, **headers}) as response:
        body = await response.read()
        return response.status, decode(body, Refusal) if response.status >= 400 else None, response.headers


class TestTokens:
    async def test_the_first_token_lets_in_as_many_boards_as_the_run_waits_for(self, server: Any) -> None:
        """The line that `serve` prints joins the fleet; the next board hears how to get a token."""
        first = server.opened.folder.secret(server.opened.folder.join_token)
        assert [(await enrol(server, first, number))[0] for number in (1, 2)] == [200, 200]

        status, body = await enrol(server, first, 3)

        refused = decode(body, Refusal)
        assert (status, refused.code) == (401, "unauthorised") and "for 2 boards and is used up" in refused.message
        assert "token create DIR" in refused.hint and "--uses" in refused.hint
        assert (await enrol(server, first, 2))[0] == 200, "the same board again"

    async def test_an_expired_token_says_so(self, server: Any, wall_clock: WallClock) -> None:
        """A day later, by the server's own clock."""
        wall_clock.advance(86400 + 7200)

        status, body = await enrol(server, server.token)

        assert status == 401 and "expired 2 h 0 min ago" in decode(body, Refusal).message

    async def test_a_revoked_board_gets_in_by_no_token(self, server: Any) -> None:
        """Not with a new one, and not under a new id with the one that it had; a full fleet is no help either."""
        board = await server.board("ada", install=1)
        server.opened.store.revoke_device(board.device)
        fresh = new_secret()
        server.opened.store.add_token(secret_hash(fresh), "")

        refused = [await enrol(server, token, number) for token, number in ((fresh, 1), (server.token, 1))]
        other_id = await enrol(server, server.token, 2)

        assert [decode(body, Refusal).code for _, body in refused] == ["revoked", "revoked"]
        assert other_id[0] == 401 and "revoked" in decode(other_id[1], Refusal).message


class TestRemoval:
    async def test_a_running_server_sees_that_boards_were_removed_and_revoked(self, server: Any) -> None:
        """Without a word of theirs: the page shows them no more, and no round waits for them."""
        ada, bo, cy = [await server.board(name) for name in ("ada", "bo", "cy")]
        store, run = server.opened.store, server.run

        store.remove_device(ada.device), store.revoke_device(bo.device)
        await run.step()

        assert [board.device for board in run.boards] == ["bo", "cy"] and run.boards["bo"].revoked
        assert run.boards.live(run.clock()) == {"cy"}
        assert any("ada was removed" in event for event in run.events)
        assert (await ask(ada, "GET", "/v1/work"))[0] == 401 and (await ask(bo, "GET", "/v1/work"))[0] == 403
        store.allow_device(bo.device)
        await run.step()
        assert (await ask(bo, "GET", "/v1/work"))[0] == 200 and not run.boards["bo"].revoked
        assert cy.device in run.boards

    async def test_a_poll_that_waits_is_told(self, server: Any) -> None:
        """It does not hang on until its time is up, and is no error of ours."""
        board = await server.board("ada")
        assert (await board.send_profile())[0] == 200
        board_of, poll = server.run.boards[board.device], None

        async def remove_once_waiting() -> None:
            while not board_of.polls:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0)
            server.opened.store.remove_device(board.device)
            await server.run.step()

        poll, _ = await asyncio.gather(ask(board, "GET", "/v1/work?wait=60"), remove_once_waiting())

        assert poll[0] == 401 and poll[1] is not None and "removed" in poll[1].message

    async def test_a_run_whose_boards_were_removed_goes_on_and_starts_again(
        self, server: Any, start: Any, stop: Any, begin_training: Any
    ) -> None:
        """What they have taught counts, in the round that is open too, also after a restart."""
        boards = [await server.board(name) for name in ("ada", "bo")]
        tasks = await begin_training(boards)
        await boards[0].train(tasks[0])
        server.opened.store.remove_device("ada")
        await server.run.step()
        assert server.run.open_round.accepted == 1
        await stop(server)

        again = await start(server.opened.folder)

        assert again.run.open_round.accepted == 1 and [board.device for board in again.run.boards] == ["bo"]
        boards[1].server = again
        await boards[1].train(tasks[1])
        await again.run.step()
        assert again.run.state.version == 2

    async def test_a_full_fleet_names_the_way_out(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """To the board, and on the page; after it was gone, there is room."""
        for name in ("store.devices", "run.memory"):
            monkeypatch.setattr(f"aggregator.{name}.MAX_DEVICES", 1)
        await enrol(server, server.token, 1)

        status, body = await enrol(server, server.token, 2)

        assert status == 409 and "device remove DIR" in decode(body, Refusal).hint
        assert "device remove DIR" in page(describe(server.run))
        server.opened.store.remove_device("n-1")
        assert (await enrol(server, server.token, 2))[0] == 200


class TestUploadUnderWay:
    @pytest.mark.parametrize(("how", "status"), [("revoke_device", 403), ("remove_device", 401)])
    async def test_it_does_not_count(
        self, server: Any, begin_training: Any, monkeypatch: pytest.MonkeyPatch, how: str, status: int
    ) -> None:
        """The command runs while the last bytes arrive: neither sums nor rows have it, and the others go on."""
        boards = [await server.board(name) for name in ("ada", "bo")]
        tasks = await begin_training(boards)
        fired: list[str] = []
        finish = Part.finish

        def shut_out_meanwhile(part: Part) -> Any:
            fired.append(how)
            assert getattr(server.opened.store, how)("ada")
            return finish(part)

        with monkeypatch.context() as patch:
            patch.setattr(Part, "finish", shut_out_meanwhile)
            answered, refused, _ = await boards[0].upload(1, boards[0].update(tasks[0]))

        assert fired and answered == status and isinstance(refused, Refusal)
        assert server.run.open_round.accepted == 0 and server.opened.store.updates() == ()
        assert (await boards[1].train(tasks[1])).accepted


class TestCopies:
    async def test_both_copies_are_told_and_the_page_shows_them(self, server: Any, clock: FakeClock) -> None:
        """The newest is served and warned; the other is refused with what to do; when one stops, the other goes on."""
        board = await server.board("ada")
        one, two = {SESSION: "1" * 32}, {SESSION: "2" * 32}
        assert [(await ask(board, "GET", "/v1/work", **each))[0] for each in (one, one, two)] == [200] * 3
        assert describe(server.run)["boards"][0]["copies"] is None, "a restart is no copy"

        status, refused, headers = await ask(board, "GET", "/v1/work", **one)

        assert refused is not None and (status, refused.code) == (409, "copied") and headers["Retry-After"] == "60"
        assert "another client is at work as ada" in refused.message and "--state" in refused.hint
        async with board.client.get("/v1/work", headers={**board.headers, **two}) as response:
            served = decode(await response.read(), Task)
        assert "a copy of this board's identity" in served.notice
        facts = describe(server.run)
        for shown in (page(facts), status_text(facts), "\n".join(facts["events"])):
            assert "two clients use its identity, from 127.0.0.1" in shown
        clock.advance(SILENT_S)
        assert (await ask(board, "GET", "/v1/work", **one))[0] == 200

    async def test_a_copy_does_not_take_an_upload_away(self, server: Any, begin_training: Any) -> None:
        """What the served one has sent of it stays: the other one's upload is refused before its first byte."""
        boards = [await server.board(name) for name in ("ada", "bo")]
        tasks = await begin_training(boards)
        board, body = boards[0], boards[0].update(tasks[0])
        old, new = dict(board.headers), {**board.headers, SESSION: "2" * 32}
        board.headers = new
        await ask(board, "GET", "/v1/work")
        status, _, offset = await board.upload(1, body, stop=1000)
        assert (status, offset) == (409, "1000")

        board.headers = old
        other = boards[0].update(tasks[0], scale=0.02)
        status, refused, _ = await board.upload(1, other)

        assert isinstance(refused, Refusal) and (status, refused.code) == (409, "copied")
        board.headers = new
        status, receipt, _ = await board.upload(1, body, offset=1000)
        assert status == 200 and not isinstance(receipt, Refusal) and receipt.accepted

    async def test_other_calls_of_the_same_board_are_no_copy(self, server: Any) -> None:
        """`edge-client evaluate` fetches versions beside a client at work."""
        board = await server.board("ada")
        one = {SESSION: "1" * 32}
        for path, headers in (("/v1/work", one), ("/v1/run", {}), ("/v1/base", {}), ("/v1/work", one)):
            assert (await ask(board, "GET", path, **headers))[0] == 200

        assert describe(server.run)["boards"][0]["copies"] is None


class TestRenewal:
    async def renewed(self, server: Any, board: Any, wall_clock: WallClock) -> str:
        """The board's next credential, once it has told the server of it."""
        wall_clock.advance(RENEW_AFTER_S)
        assert (await board.work(wait_s=0)).renew
        credential = new_secret()
        body = encode(Renew(credential=secret_hash(credential)))
        async with server.client.put("/v1/credential", data=body, headers=board.headers) as response:
            assert response.status == 204
        return credential

    async def test_a_month_old_credential_is_renewed(
        self, server: Any, start: Any, stop: Any, wall_clock: WallClock
    ) -> None:
        """Both are valid until the next was used, also over a restart; then the old one is not, and its holder is told
        that there is another."""
        board = await server.board("ada")
        assert not (await board.work(wait_s=0)).renew
        async with server.run.writing:  # a merge may take longer than a board waits
            credential = await asyncio.wait_for(self.renewed(server, board, wall_clock), 10)
        assert (await board.work(wait_s=0)).renew, "it is still the old one that comes"
        await stop(server)
        again = await start(server.opened.folder, wall_clock)
        board.server = again

        old, new = dict(board.headers), {**board.headers, "Authorization": f"Bearer {credential}"}
        board.headers = new
        async with again.run.writing:
            assert not (await asyncio.wait_for(board.work(wait_s=0), 10)).renew

        board.headers = old
        status, refused, _ = await ask(board, "GET", "/v1/work")
        assert refused is not None and (status, refused.code) == (401, "unauthorised")
        assert "was renewed" in refused.message

    async def test_the_old_one_is_a_sign_of_a_copy_but_not_at_once(
        self, server: Any, wall_clock: WallClock, clock: FakeClock
    ) -> None:
        """A report that was on its way raises no alarm; one of the day after does."""
        board = await server.board("ada")
        old = dict(board.headers)
        credential = await self.renewed(server, board, wall_clock)
        board.headers = {**board.headers, "Authorization": f"Bearer {credential}"}
        await board.work(wait_s=0)

        board.headers = old
        await ask(board, "GET", "/v1/run")
        assert describe(server.run)["boards"][0]["copies"] is None
        clock.advance(RENEWED_JUST_NOW_S)
        await ask(board, "GET", "/v1/run")

        assert "two clients use its identity" in status_text(describe(server.run))

    async def test_none_is_renewed_before_its_time(self, server: Any) -> None:
        """Each one is a write to the disk."""
        board = await server.board("ada")
        body = encode(Renew(credential="a" * 64))

        async with server.client.put("/v1/credential", data=body, headers=board.headers) as response:
            assert response.status == 409


class TestProofs:
    async def test_a_certificate_is_proven_to_the_board_that_asks(self, server: Any) -> None:
        """For it alone, for this question alone, and for the certificate that is shown now; none without TLS."""
        ada, bo, nonce, shown = await server.board("ada"), await server.board("bo"), new_nonce(), "ab" * 32
        question = Prove(protocol=1, device=ada.device, nonce=nonce)
        assert (await server.post("/v1/proofs", question, Proof)).certificate is None

        certificates = Certificates(Tls(None, certificate=shown), lambda: Tls(None))
        server.client.app[CERTIFICATES].tls = certificates.tls
        proof = await server.post("/v1/proofs", question, Proof)

        assert proof.certificate is not None and is_proof(proof.proof, ada.credential, ada.device, nonce)
        assert is_certificate_proof(proof.certificate, ada.credential, ada.device, nonce, shown)
        for credential, device, asked, seen in (
            (bo.credential, ada.device, nonce, shown),
            (ada.credential, bo.device, nonce, shown),
            (ada.credential, ada.device, new_nonce(), shown),
            (ada.credential, ada.device, nonce, "cd" * 32),  # of somebody who relays the question
        ):
            assert not is_certificate_proof(proof.certificate, credential, device, asked, seen)
        assert proof.proof != proof.certificate


async def test_the_history_follows_from_the_run_and_each_version(
    server: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """A board reckons the value in RunInfo from the digests; a restart changes nothing."""
    boards = [await server.board(name) for name in ("ada", "bo")]
    before = await boards[0].get("/v1/run", RunInfo)
    assert before.history == empty_history(before.run_id, before.base.digest, before.manifest)
    tasks = await begin_training(boards)
    for board, task in zip(boards, tasks, strict=True):
        await board.train(task)
    await server.run.step()

    run = await boards[0].get("/v1/run", RunInfo)
    versions = (await boards[0].get("/v1/versions", History, after="0")).versions

    value = before.history
    for version in versions:
        value = next_history(value, version.version, version.digest)
    assert [version.version for version in versions] == [1, 2] and run.version == 2 and run.history == value
    assert versions[-1].digest == hashlib.sha256(server.run.storage.blobs.get(versions[-1].digest)).hexdigest()
    assert (await boards[0].get("/v1/versions", History, after="1")).versions == versions[1:]
    await stop(server)
    assert (await start(server.opened.folder)).run.history == value
