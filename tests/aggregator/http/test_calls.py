"""Every call: who may, what is answered, and how bad input is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from aggregator.http.app import HANDLERS
from wire import routes
from wire.codec import CONTENT_TYPE, decode, encode
from wire.limits import MAX_CONTROL_BYTES
from wire.messages import BaseFiles, Enrol, Receipt, Refusal

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
        monkeypatch.setattr("aggregator.store.devices.MAX_DEVICES", 2)
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

        server.opened.store.revoke_token(2)
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
        for path in ("/v1/devices", "/v1/reports"):
            status, answer = await refusal(server, "POST", path, data=b"\xc1garbage", headers=board.headers)
            assert (status, answer.code) == (400, "bad_request"), path
        status, garbage = await board.send_profile(b"\xc1garbage")
        assert isinstance(garbage, Refusal) and (status, garbage.code) == (400, "bad_request")

        assert list(server.opened.folder.blobs.iterdir()) == [] and server.opened.store.received() == ()
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
            for method, path in (("POST", "/v1/reports"), ("PATCH", "/v1/uploads/0"), ("PATCH", "/v1/uploads/1")):
                status, _ = await refusal(server, method, path, headers=headers)
                assert status == 415, (encoding, path)

    @pytest.mark.parametrize("credential", ["", "Bearer wrong", "Basic d3Jvbmc=", "Bearer \xe9", "nonsense"])
    async def test_every_call_of_a_board_needs_its_credential(self, server: Any, credential: str) -> None:
        """401 for each, with whatever stands in Authorization."""
        headers = {"Authorization": credential, "Content-Type": CONTENT_TYPE}
        for method, path in [
            ("GET", "/v1/run"),
            ("GET", "/v1/work"),
            ("POST", "/v1/reports"),
            ("PATCH", "/v1/uploads/0"),
            ("PATCH", "/v1/uploads/1"),
            ("GET", "/v1/uploads/1"),
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
            name: (server_base / name).stat().st_size for name in ("config.json", "model.safetensors", "tokenizer.json")
        }

    async def test_equal_plans_share_one_file(self, server: Any, begin_training: Any) -> None:
        """Two boards of the same ranks cost one cut."""
        boards = [await server.board("ada"), await server.board("bo")]
        await begin_training(boards)
        for board in boards:
            await board.adapter(1, 2)

        assert len(list(server.opened.folder.cuts.iterdir())) == 1


def test_every_call_of_the_protocol_is_answered() -> None:
    """No call is in the protocol's table without a handler, and none is handled that is not in it."""
    assert set(HANDLERS) == {call for call in vars(routes).values() if isinstance(call, routes.Call)}
