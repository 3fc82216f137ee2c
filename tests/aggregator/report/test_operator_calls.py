"""The operator's calls: page, status and metrics; and what boards' reports can do to them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from wire.limits import MAX_METRICS
from wire.messages import Report


@pytest.fixture
async def server(make_folder: Any, start: Any) -> Any:
    return await start(make_folder())


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
