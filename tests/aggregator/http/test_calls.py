"""Every call: who may, what is answered, and how bad input is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from aggregator.http.app import HANDLERS
from aggregator.run.long_polls import MAX_POLLS
from wire import routes
from wire.codec import CONTENT_TYPE, decode, encode
from wire.limits import MAX_CONTROL_BYTES, MAX_METRICS
from wire.messages import BaseFiles, Enrol, Receipt, Refusal, Report

OTHER_VERSION = CONTENT_TYPE.replace("v=1", "v=9")


async def refusal(server: Any, method: str, path: str, **options: Any) -> tuple[int, Refusal]:
    async with server.client.request(method, path, **options) as response:
        assert response.headers["Content-Type"] == CONTENT_TYPE
        return response.status, decode(await response.read(), Refusal)


def enrolment(token: str, **changes: Any) -> bytes:
    fields = {"protocol": 1, "token": token, "install_id": "0" * 32, "name": "ada", "client_version": "1", **changes}
    return encode(Enrol(**fields))


@pytest.fixture
async def server(make_folder: Any, start: Any) -> Any:
    return await start(make_folder())


class TestEnrolment:
    async def test_the_same_install_comes_back_as_the_same_device(self, server: Any) -> None:
        """Its old credential ends, its new one works."""
        first = await server.board("ada", install=5)
        again = await server.board("ada", install=5)

        assert first.device == again.device and first.credential != again.credential
        assert (await again.work(wait_s=0)).kind == "profile"
        status, answer = await refusal(server, "GET", "/v1/run", headers=first.headers)
        assert (status, answer.code) == (401, "unauthorised")

    async def test_a_full_run_takes_no_more_boards(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever has a join token cannot fill disk and memory with names; boards that are known come back."""
        monkeypatch.setattr("aggregator.store.store.MAX_DEVICES", 2)
        await server.board("ada", install=1), await server.board("bo", install=2)

        body = enrolment(server.token, install_id=f"{3:032x}")
        status, answer = await refusal(server, "POST", "/v1/devices", data=body, headers={"Content-Type": CONTENT_TYPE})

        assert (status, answer.code) == (409, "conflict") and "2 devices" in answer.message
        assert (await server.board("ada", install=1)).device == "ada" and len(server.run.boards) == 2

    async def test_a_wrong_or_revoked_token_is_unauthorised(self, server: Any) -> None:
        """401 with a sentence that says how to get one."""
        headers = {"Content-Type": CONTENT_TYPE}
        status, answer = await refusal(server, "POST", "/v1/devices", data=enrolment("wrong"), headers=headers)
        assert (status, answer.code) == (401, "unauthorised") and "token create" in answer.hint

        server.opened.store.revoke_token(1)
        status, _ = await refusal(server, "POST", "/v1/devices", data=enrolment(server.token), headers=headers)
        assert status == 401

    async def test_another_protocol_version_is_refused_with_a_sentence(self, server: Any) -> None:
        """In the content type, in the message, and in what a GET accepts: 426."""
        board = await server.board("ada")
        old = enrolment(server.token, protocol=9)
        cases = [
            ("POST", "/v1/devices", {"data": enrolment(server.token), "headers": {"Content-Type": OTHER_VERSION}}),
            ("POST", "/v1/devices", {"data": old, "headers": {"Content-Type": CONTENT_TYPE}}),
            ("GET", "/v1/run", {"headers": {**board.headers, "Accept": OTHER_VERSION}}),
        ]
        for method, path, options in cases:
            status, answer = await refusal(server, method, path, **options)
            assert (status, answer.code) == (426, "protocol_version") and "9" in answer.message

    async def test_another_content_type_is_415(self, server: Any) -> None:
        """JSON is not spoken here."""
        status, answer = await refusal(server, "POST", "/v1/devices", json={"token": "x"})

        assert (status, answer.code) == (415, "protocol_version")


class TestRefusals:
    async def test_garbage_is_a_bad_request(self, server: Any) -> None:
        """Bytes that are no message give 400, as update, profile, report and enrolment, and nothing is stored."""
        board = await server.board("ada")
        for path in ("/v1/devices", "/v1/reports", "/v1/profiles"):
            status, answer = await refusal(server, "POST", path, data=b"\xc1garbage", headers=board.headers)
            assert (status, answer.code) == (400, "bad_request"), path

        assert server.run.open_round.accepted == 0
        assert (await board.send_profile())[0] == 200

    async def test_an_oversized_control_message_is_too_large(self, server: Any) -> None:
        """Counted while it streams, with and without a Content-Length."""
        board = await server.board("ada")

        async def chunks() -> Any:
            for _ in range(MAX_CONTROL_BYTES // 1024 + 1):
                yield b"x" * 1024

        for data in (b"x" * (MAX_CONTROL_BYTES + 1), chunks()):
            status, answer = await refusal(server, "POST", "/v1/reports", data=data, headers=board.headers)
            assert (status, answer.code) == (413, "too_large")

    async def test_an_oversized_upload_is_refused_before_its_body(self, server: Any, begin_training: Any) -> None:
        """What cannot be an update of this run is not read at all."""
        boards = [await server.board("ada"), await server.board("bo")]
        await begin_training(boards)
        most = server.run.terms.largest_upload_bytes
        headers = {**boards[0].headers, "Upload-Digest": "0" * 64, "Upload-Offset": "0"}

        status, answer = await refusal(
            server, "PATCH", "/v1/uploads/1", data=b"x", headers={**headers, "Upload-Length": str(most + 1)}
        )

        assert (status, answer.code) == (413, "too_large")
        assert list(server.opened.folder.uploads.iterdir()) == []

    async def test_compressed_bodies_are_not_taken(self, server: Any) -> None:
        """A bomb would burst before it is counted."""
        board = await server.board("ada")
        for encoding in ("gzip", "deflate", "br", "x"):
            headers = {**board.headers, "Content-Encoding": encoding}
            for method, path in (("POST", "/v1/reports"), ("POST", "/v1/profiles"), ("PATCH", "/v1/uploads/1")):
                status, _ = await refusal(server, method, path, headers=headers)
                assert status == 415, (encoding, path)

    @pytest.mark.parametrize("credential", ["", "Bearer wrong", "Basic d3Jvbmc=", "Bearer \xe9", "nonsense"])
    async def test_every_call_of_a_board_needs_its_credential(self, server: Any, credential: str) -> None:
        """401 for each, with whatever stands in Authorization."""
        headers = {"Authorization": credential, "Content-Type": CONTENT_TYPE}
        for method, path in [
            ("GET", "/v1/run"),
            ("GET", "/v1/work"),
            ("POST", "/v1/profiles"),
            ("POST", "/v1/reports"),
            ("PATCH", "/v1/uploads/1"),
            ("GET", "/v1/adapters/0?ranks=0"),
            ("GET", "/v1/base/config.json"),
        ]:
            status, answer = await refusal(server, method, path, headers=headers)
            assert (status, answer.code) == (401, "unauthorised"), path

    async def test_a_revoked_device_is_shut_out_and_not_waited_for(self, server: Any) -> None:
        """403 from the next call on, though the command ran in another process; enrolling again does not help."""
        board = await server.board("ada", install=5)
        server.opened.store.revoke_device(board.device)

        status, answer = await refusal(server, "GET", "/v1/work", headers=board.headers)

        assert (status, answer.code) == (403, "revoked")
        assert board.device not in server.run.boards.live(server.run.clock())
        headers = {"Content-Type": CONTENT_TYPE}
        body = enrolment(server.token, install_id=f"{5:032x}")
        assert (await refusal(server, "POST", "/v1/devices", data=body, headers=headers))[0] == 403

    async def test_unknown_calls_and_numbers(self, server: Any) -> None:
        """404, 405 and 400 are Refusals as well."""
        board = await server.board("ada")
        for method, path, expected in [
            ("GET", "/v1/nothing", 404),
            ("DELETE", "/v1/run", 405),
            ("GET", "/v1/work?wait=soon", 400),
            ("GET", "/v1/work?wait=nan", 400),
            ("GET", "/v1/adapters/1?ranks=4", 404),
            ("GET", "/v1/adapters/0?ranks=1.2", 400),
            ("GET", "/v1/adapters/0?ranks=a", 400),
            ("GET", "/v1/adapters/x?ranks=1", 400),
            ("PATCH", "/v1/uploads/0", 400),
            ("PATCH", "/v1/uploads/1", 400),
            ("GET", "/v1/base/secret.txt", 404),
            ("GET", "/v1/base/..%2Frun.toml", 404),
        ]:
            status, _ = await refusal(server, method, path, headers=board.headers)
            assert status == expected, path

    async def test_a_bug_of_ours_is_a_500_without_details(
        self, server: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """The board hears that the server made a mistake; the log has the traceback."""
        board = await server.board("ada")
        monkeypatch.setattr("aggregator.run.tasks.run_info", lambda run: 1 / 0)

        status, answer = await refusal(server, "GET", "/v1/run", headers=board.headers)

        assert (status, answer.code) == (500, "internal")
        assert "division" not in answer.message + answer.hint and "ZeroDivisionError" in caplog.text


class TestProfiles:
    async def test_a_profile_counts_once_whatever_its_bytes(self, server: Any) -> None:
        """The second one gets the first one's receipt, also after training has begun."""
        ada, bo = await server.board("ada"), await server.board("bo")
        assert (await ada.send_profile()) == (200, Receipt(accepted=True))
        assert (await ada.send_profile(ada.profile(n_examples=500))) == (200, Receipt(accepted=True))
        assert server.run.open_round.accepted == 1

        await bo.send_profile()
        assert (await ada.work()).kind == "train"
        assert (await ada.send_profile()) == (200, Receipt(accepted=True))

    async def test_an_empty_profile_is_a_bad_request(self, server: Any) -> None:
        """And the board can still send a whole one."""
        board = await server.board("ada")

        status, answer = await board.send_profile(b"")

        assert (status, answer.code) == (400, "bad_request")
        assert (await board.send_profile()) == (200, Receipt(accepted=True))

    async def test_a_late_board_is_told_that_profiling_is_over(self, server: Any, begin_training: Any) -> None:
        """It starts at the current version instead."""
        await begin_training([await server.board("ada"), await server.board("bo")])
        late = await server.board("cyd")

        status, answer = await late.send_profile()

        assert (status, answer.code) == (410, "gone")
        assert (await late.work()).kind == "train"


class TestDownloads:
    async def test_an_adapter_has_its_digest_as_etag_and_resumes(self, server: Any, begin_training: Any) -> None:
        """Range continues what broke, If-None-Match saves a repeat, a range behind the end says how long it is."""
        boards = [await server.board("ada"), await server.board("bo")]
        await begin_training(boards)
        ranks = ".".join(["1"] * len(boards[0].info.weights))
        path, headers = f"/v1/adapters/1?ranks={ranks}", boards[0].headers
        async with server.client.get(path, headers=headers) as response:
            whole, etag = await response.read(), response.headers["ETag"]
        assert etag == f'"{hashlib.sha256(whole).hexdigest()}"'

        for start in (1, len(whole) // 2, len(whole) - 1):
            ranged = {**headers, "Range": f"bytes={start}-", "If-Range": etag}
            async with server.client.get(path, headers=ranged) as response:
                assert (response.status, await response.read()) == (206, whole[start:])
        async with server.client.get(path, headers={**headers, "Range": "bytes=2-5"}) as response:
            assert (response.status, await response.read()) == (206, whole[2:6])
            assert response.headers["Content-Range"] == f"bytes 2-5/{len(whole)}"
        async with server.client.get(path, headers={**headers, "Range": "bytes=2-", "If-Range": '"x"'}) as response:
            assert (response.status, await response.read()) == (200, whole)
        async with server.client.get(path, headers={**headers, "If-None-Match": etag}) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with server.client.head(path, headers=headers) as response:
            assert response.headers["Content-Length"] == str(len(whole))
        async with server.client.get(path, headers={**headers, "Range": f"bytes={len(whole)}-"}) as response:
            assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")

    async def test_base_files_are_served_by_range(self, server: Any, server_base: Any) -> None:
        """A board that reaches no hub gets the base from the server, and no other file of the folder."""
        board = await server.board("ada")
        expected = (server_base / "model.safetensors").read_bytes()
        path = "/v1/base/model.safetensors"
        async with server.client.get(path, headers=board.headers) as response:
            assert (response.status, await response.read()) == (200, expected)
            assert response.headers["ETag"] == f'"{hashlib.sha256(expected).hexdigest()}"'
        async with server.client.get(path, headers={**board.headers, "Range": "bytes=100-"}) as response:
            assert (response.status, await response.read()) == (206, expected[100:])
        listed = await board.get("/v1/base", BaseFiles)
        assert {file.name: file.size_bytes for file in listed.files} == {
            name: (server_base / name).stat().st_size for name in ("config.json", "model.safetensors")
        }

    async def test_equal_plans_share_one_file(self, server: Any, begin_training: Any) -> None:
        """Two boards of the same ranks cost one cut."""
        boards = [await server.board("ada"), await server.board("bo")]
        await begin_training(boards)
        for board in boards:
            await board.adapter(1, 2)

        assert len(list(server.opened.folder.cuts.iterdir())) == 1


class TestForPeople:
    async def test_the_operators_token_opens_page_status_and_metrics(self, server: Any) -> None:
        """As a bearer or as a browser's password; a board's credential does not, nor nothing at all."""
        board = await server.board("ada")
        basic = base64.b64encode(f"anyone:{server.operator}".encode()).decode()
        for path in ("/", "/v1/status", "/metrics"):
            for authorization, expected in [
                (f"Bearer {server.operator}", 200),
                (f"Basic {basic}", 200),
                (f"Bearer {board.credential}", 401),
                ("Basic !!!", 401),
                ("", 401),
            ]:
                async with server.client.get(path, headers={"Authorization": authorization}) as response:
                    assert response.status == expected, (path, authorization)
                    assert expected == 200 or "Basic" in response.headers["WWW-Authenticate"]

    async def test_hostile_names_are_escaped(self, server: Any, begin_training: Any) -> None:
        """A board's name, plan and refusal reason come out as text on the page and in the metrics."""
        evil = '<script>alert("x")</script>\\'
        boards = [await server.board(evil), await server.board("bo")]
        tasks = await begin_training(boards)
        assert not (await boards[0].train(tasks[0], rename=evil)).accepted
        await boards[0].report(Report(kind="plan", text=evil, values={"budget_bytes": 1.0}))
        await boards[0].report(Report(kind="event", text=evil))
        await boards[0].report(Report(kind="evaluation", round=1, version=1, values={"loss": 1.0}))
        headers = {"Authorization": f"Bearer {server.operator}"}

        for path in ("/", "/?part=1"):
            async with server.client.get(path, headers=headers) as response:
                text = await response.text()
                assert "alert(" in text and "<script>alert" not in text and "last refusal: " in text
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        async with server.client.get("/metrics", headers=headers) as response:
            lines = (await response.text()).splitlines()
        assert all(line.startswith(("#", "braid_")) for line in lines)
        assert any('alert(\\"x\\")</script>\\\\' in line for line in lines)

    async def test_absurd_numbers_are_not_kept(self, server: Any) -> None:
        """A board can neither fill memory with numbers of its own invention nor break the page with huge ones."""
        board, other = await server.board("ada"), await server.board("bo")
        for i in range(100):
            values = {f"made up {i} {j}": 1.0 for j in range(MAX_METRICS)}
            assert await board.report(Report(kind="progress", values=values)) == 204
        huge = {"step": 1e300, "loss": -1e300, "peak_bytes": 1e300, "tokens_per_s": 5.0}
        await board.report(Report(kind="progress", values=huge))
        await board.report(Report(kind="evaluation", values={"loss": 1e300, "rougeL": -1.0, "n_examples": 1e300}))
        await board.report(Report(kind="evaluation", values={"loss": 3.0, "n_examples": 1e14}))
        await other.report(Report(kind="evaluation", values={"loss": 1.0, "n_examples": 1e6}))

        assert dict(server.run.boards[board.device].progress) == {"tokens_per_s": 5.0}
        facts = await server.status()
        assert facts["evaluations"][0]["mean_loss"] == 2.0
        assert facts["boards"][0]["step"] is None

    async def test_a_version_that_does_not_exist_cannot_be_evaluated(self, server: Any) -> None:
        """Else one board could store a hundred thousand evaluations."""
        board = await server.board("ada")

        for kind in ("evaluation", "plan"):
            assert await board.report(Report(kind=kind, version=1, values={"loss": 1.0})) == 400
        assert server.opened.store.reports() == () and server.run.boards[board.device].losses == {}

    async def test_probes_answer_anybody(self, server: Any) -> None:
        """/healthz says that the process answers, /readyz that the orchestrator works."""
        for path in ("/healthz", "/readyz"):
            async with server.client.get(path) as response:
                assert response.status == 200

    async def test_the_server_counts_bytes(self, server: Any, begin_training: Any) -> None:
        """Bodies up and down, per board."""
        boards = [await server.board("ada"), await server.board("bo")]
        tasks = await begin_training(boards)
        body = boards[0].update(tasks[0])
        await boards[0].upload(1, body)

        facts = (await server.status())["boards"][0]

        assert len(body) < facts["bytes_up"] < 2 * len(body) + len(boards[0].profile())
        assert facts["bytes_down"] > 0


async def test_a_board_cannot_hold_any_number_of_long_polls(make_folder: Any, start: Any) -> None:
    """Those beyond a few are answered at once, with a pause."""
    server = await start(make_folder())
    board = await server.board("ada")
    await board.send_profile()
    polls = [asyncio.ensure_future(board.work(wait_s=50)) for _ in range(MAX_POLLS + 2)]

    done, waiting = await asyncio.wait(polls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert {poll.result().kind for poll in done} == {"wait"} and all(poll.result().retry_after_s > 0 for poll in done)
    for poll in waiting:
        poll.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_long_polls_end_when_the_server_stops(make_folder: Any, start: Any, stop: Any) -> None:
    """Stopping does not wait for a poll's whole time."""
    server = await start(make_folder())
    board = await server.board("ada")
    await board.send_profile()
    polling = asyncio.ensure_future(board.work(wait_s=50))
    await asyncio.sleep(0.05)

    await asyncio.wait_for(stop(server), 10)

    await asyncio.gather(polling, return_exceptions=True)


def test_every_call_of_the_protocol_is_answered() -> None:
    """No call is in the protocol's table without a handler, and none is handled that is not in it."""
    assert set(HANDLERS) == {call for call in vars(routes).values() if isinstance(call, routes.Call)}
