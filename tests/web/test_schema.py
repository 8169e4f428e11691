"""The description of the API and the API agree: requests made up from it, valid and not, get the answers it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, strategies
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from proxyroute.checkup import Checkup
from proxyroute.contingency import Contingency
from proxyroute.decided import Action, Diagnosis
from proxyroute.failover import Orders
from proxyroute.model import Epoch, Observed
from proxyroute.prospect import Prospect
from proxyroute.web.limits import Rate
from proxyroute.web.tokens import Scope
from tests.support.builders import replica, server, view
from tests.support.web import Web, make_web
from tests.web.test_metrics import journal
from tests.web.test_security import ROUTES

GOOD = view(server(1), replica(2), replica(3))
load_all_checks()
_WANTED = (
    "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection", "unsupported_method",
)  # fmt: skip


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    made = make_web(tmp_path)
    made.see(GOOD, [Observed("edge", True, Epoch(1, 1), "db1")])
    journal(made, "20261101T000000-abcdef", 1000.0)
    finding = Diagnosis("NoProblem", "all is well", Action.NONE, "db1")
    monkeypatch.setattr(made.hub, "check", lambda name: Checkup(name, (), looked=True))
    monkeypatch.setattr(made.hub, "plan_switchover", lambda *_, **__: Prospect(GOOD, None, None, ()))
    monkeypatch.setattr(
        made.hub, "plan_failover", lambda *_, **__: Contingency(GOOD, finding, None, None, Orders(), ())
    )  # fmt: skip
    made.app.state.streams.most = 0  # a stream would not end
    made.app.state.command_rate = Rate(1_000_000, 1_000_000)
    yield made
    assert made.hub.close(10)


@pytest.fixture
def described(web: Web) -> Any:
    token = {"Authorization": f"Bearer {web.token(Scope.ADMIN)}"}
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", web.app, headers=token | {"Host": "127.0.0.1"})
    schema.config.update(headers=token | {"Host": "127.0.0.1"})
    return schema


_NAMES = {"cluster": "shop", "server": "db1", "operation": "20261101T000000-abcdef"}


def operations() -> list[tuple[str, str]]:
    """Returns every operation that is described."""
    described = {(method, path) for method, path in ROUTES if path.startswith("/v1/") and method != "OPTIONS"}
    return sorted(described - {("GET", "/v1/openapi.json")})


@pytest.mark.parametrize(("method", "path"), operations())
def test_every_answer_is_as_described(described: Any, method: str, path: str) -> None:
    operation = described[path][method]
    checks = [CHECKS.get_one(name) for name in _WANTED]
    cases = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @hypothesis.settings(
        max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @hypothesis.given(strategies.one_of(cases), strategies.booleans())
    def each(case: Any, known: bool) -> None:
        if known:
            case.path_parameters.update({k: v for k, v in _NAMES.items() if k in case.path_parameters})
        answer = case.call()
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=checks)

    each()
