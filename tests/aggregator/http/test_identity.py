"""A server shows its boards that it is theirs, lets them leave, and tells apart those of one name."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.report.page import page
from aggregator.report.status import describe
from aggregator.report.tables import rounds_text, status_text
from wire.codec import CONTENT_TYPE, decode
from wire.messages import Proof, Prove, Refusal
from wire.proof import is_proof, new_nonce


@pytest.fixture
async def server(make_folder: Any, start: Any) -> Any:
    return await start(make_folder())


async def ask(server: Any, device: str, nonce: str) -> str:
    """The server's proof for a device."""
    question = Prove(protocol=1, device=device, nonce=nonce)
    return str((await server.post("/v1/proofs", question, Proof)).proof)


async def leave(server: Any, board: Any) -> int:
    async with server.client.delete("/v1/device", headers=board.headers) as response:
        return int(response.status)


class TestProof:
    async def test_only_the_board_that_is_meant_can_check_it(self, server: Any) -> None:
        """The credential, the device and the nonce all have to be those of the question."""
        ada, bo = await server.board("ada"), await server.board("bo")
        nonce = new_nonce()

        proof = await ask(server, ada.device, nonce)

        assert is_proof(proof, ada.credential, ada.device, nonce)
        assert not is_proof(proof, bo.credential, ada.device, nonce)
        assert not is_proof(proof, ada.credential, bo.device, nonce)
        assert not is_proof(proof, ada.credential, ada.device, new_nonce())

    async def test_it_holds_after_a_restart_on_another_port(self, server: Any, start: Any, stop: Any) -> None:
        """The credential's hash is all it takes, and that is in the folder."""
        ada, nonce = await server.board("ada"), new_nonce()
        await stop(server)

        again = await start(server.opened.folder)

        assert again.client.port != server.client.port
        assert is_proof(await ask(again, ada.device, nonce), ada.credential, ada.device, nonce)

    async def test_strangers_do_not_learn_which_devices_there_are(self, server: Any) -> None:
        """The answer for one that is not there looks like any other, and is the same when asked twice."""
        ada, nonce = await server.board("ada"), new_nonce()

        nobody = await ask(server, "nobody", nonce)

        assert len(nobody) == len(await ask(server, ada.device, nonce)) == 64
        assert nobody == await ask(server, "nobody", nonce) != await ask(server, "nobody", new_nonce())


class TestLeaving:
    async def test_a_board_that_left_is_not_waited_for_and_cannot_call(
        self, server: Any, start: Any, stop: Any
    ) -> None:
        """Its credential ends, page and tables say so, also after a restart; its place stays its own."""
        ada = await server.board("ada", install=1)
        assert (server.run.boards.live(server.run.clock())) == {"ada"}

        assert await leave(server, ada) == 204

        assert not server.run.boards.live(server.run.clock())
        assert await leave(server, ada) == 401
        await stop(server)
        again = await start(server.opened.folder)
        facts = describe(again.run)
        assert facts["boards"][0]["has_left"] and not facts["boards"][0]["live"]
        assert " left" in status_text(facts) and '<span class="quiet">left</span>' in page(facts)
        back = await again.board("ada", install=1)
        assert back.device == "ada" and (await back.work(wait_s=0)).kind == "profile"
        assert len(again.run.boards) == 1 and not describe(again.run)["boards"][0]["has_left"]

    async def test_a_board_that_left_is_proven_to_by_nobody(self, server: Any) -> None:
        """Its credential is no key any more."""
        ada, nonce = await server.board("ada"), new_nonce()
        await leave(server, ada)

        assert not is_proof(await ask(server, ada.device, nonce), ada.credential, ada.device, nonce)


async def test_two_boards_of_one_name_are_told_apart(server: Any) -> None:
    """Wherever a board is named, its id stands beside the name, where another board has the same."""
    await server.board("nano", install=1), await server.board("nano", install=2)

    facts = await server.status()
    text = status_text(facts) + "\n".join(facts["events"])

    assert [board["label"] for board in facts["boards"]] == ["nano (nano)", "nano (nano-2)"]
    assert "nano (nano-2) enrolled" in text and "nano (nano-2)  " in text
    evaluations = [{"version": 1, "mean_loss": 1.0, "worst_loss": 2.0, "worst_label": "nano (nano-2)"}]
    row = {"round": 1, "state": "merged", "version": 1, "accepted": 2, "refused": 0, "stale": 0, "reason": "quorum"}
    times = {"opened_at": 0.0, "closed_at": 1.0}
    assert "worst (nano (nano-2))" in rounds_text({"evaluations": evaluations, "rounds": [{**row, **times}]})


async def test_a_request_without_its_credential_names_the_proxy(server: Any) -> None:
    """No Authorization at all is another fault than a wrong one."""
    async with server.client.get("/v1/run", headers={"Accept": CONTENT_TYPE}) as response:
        answer = decode(await response.read(), Refusal)

    assert response.status == 401 and "without its credential" in answer.message
    assert "Authorization" in answer.hint and "proxy" in answer.hint
