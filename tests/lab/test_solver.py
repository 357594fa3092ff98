"""One listener answers for every acmesolver Pod, and only for those that run."""

from __future__ import annotations

import httpx
import pytest

from lab.ports import free_ports
from lab.solver import CHALLENGE_PATH, Solution, SolverListener


def solution(domain: str, token: str) -> Solution:
    return Solution.of_arguments(["--listen-port=8089", f"--domain={domain}", "--token", token, f"--key={token}.print"])


async def test_each_solver_answers_its_own_name_and_token_while_it_runs() -> None:
    (port,) = free_ports(1)
    listener = SolverListener(address="127.0.0.1", port=port)
    await listener.start()
    listener.register("1", solution("a.test", "one"))
    listener.register("2", solution("b.test", "two"))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        async def ask(host: str, token: str) -> tuple[int, str]:
            answer = await client.get(CHALLENGE_PATH + token, headers={"Host": host})
            return answer.status_code, answer.text if answer.is_success else ""

        assert await ask("A.test:80", "one") == (200, "one.print")
        assert await ask("b.test", "two") == (200, "two.print")
        assert await ask("a.test", "two") == (404, "")
        listener.unregister("1")
        assert await ask("a.test", "one") == (404, "")
        assert (await client.get("/healthz")).status_code == 200
    await listener.stop()


def test_a_solver_without_its_key_is_refused_and_keys_are_not_shown() -> None:
    with pytest.raises(ValueError, match="--key"):
        Solution.of_arguments(["--domain=a.test", "--token=one"])
    assert "one.print" not in repr(solution("a.test", "one"))
