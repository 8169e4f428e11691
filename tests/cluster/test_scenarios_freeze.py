"""What happens while writes are blocked: ways to freeze, newcomers, a candidate that falls behind, a sibling ahead."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
from typing import Any

import pytest

from proxyroute.model import Deadline
from tests.support.clients import Clients
from tests.support.lab import Lab
from tests.support.mariadb import Node
from tests.support.scene import assert_order, books, configured, connect, other, standing, switched, switching
from tests.support.wait import until

FLAVOURS = ("mysql", "mariadb-11.8")
SITE = {"n": 3, "policy": {"freeze_budget": "1s", "lock_pause": "20ms"}}

STATEMENT = """
import json, pymysql, sys
for socket, statement in json.loads(sys.argv[1]):
    session = pymysql.connect(unix_socket=socket, user="root", password="lab-root", autocommit=True)
    session.cursor().execute(statement)
"""


def just_before(node: Node, statement: str, primary: Node | None = None) -> dict[str, Any]:
    """Returns the part ``scripts`` that runs ``statement`` on ``node`` when the candidate has caught up once.

    Then ``primary`` takes one more write, if it is given: the moment until the freeze is too short to rely on the
    writers for that.
    """
    acts = [(node, statement)]
    if primary is not None:
        acts.append((primary, "CREATE OR REPLACE TABLE app.late (id INT PRIMARY KEY)"))
    said = [(str(server.socket_file), words) for server, statement in acts for words in server.words(statement)]
    return {"address_down": [sys.executable, "-c", STATEMENT, json.dumps(said)]}


@pytest.mark.parametrize(
    "policy",
    [{"freeze": "backup_stage"}, {"order": "read_only_first"}, {"max_connections": 0}, {"offline_mode": True}],
    ids=str,
)
def test_other_ways_to_freeze_there_and_back_under_load(site: Lab, policy: dict[str, Any]) -> None:
    with configured(site, switchover=policy), books(site) as kept:
        for _ in range(2):
            switched(site)
            kept.go_on()
    assert_order(site)


def test_the_catch_up_wait_fails_and_writes_are_open_again_on_the_old_primary(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    old.make_table("app.held", "id INT PRIMARY KEY")
    site.cluster.await_synced()
    before = standing(site)
    with contextlib.ExitStack() as ends, books(site) as kept:
        clients = Clients(new, ends)
        holder = clients.idle("LOCK TABLES app.held READ")
        with configured(site, scripts=just_before(old, "INSERT INTO app.held VALUES (1)")):
            value = switched(site, "--to", new.name, code=4)
        assert f"waiting for {new.name} to apply" in value["error"]["text"]
        assert (site.cluster.writable, standing(site)) == ((old.name,), before)
        kept.go_on()
        clients.kill(holder)
    assert_order(site, old.name)


def test_an_applier_that_stops_after_the_warm_up_is_an_error_and_not_an_endless_wait(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    with books(site), configured(site, scripts=just_before(new, "STOP SLAVE SQL_THREAD", old)):
        value = switched(site, "--to", new.name, code=4)
        assert "cannot catch up" in value["error"]["text"]
        assert site.cluster.writable == (old.name,)
    assert_order(site, old.name)


def await_frozen(node: Node) -> None:
    """Returns once writes on ``node`` are blocked."""
    until(node.held_back, f"writes on {node.name} to be blocked")


def test_a_sibling_is_ahead_of_the_candidate_at_the_freeze_and_nobody_ends_with_1236(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    sibling = site.cluster[other(site, new.name)]
    late = just_before(new, "STOP SLAVE IO_THREAD", old)
    with (
        books(site),
        configured(site, switchover={"freeze_budget": "10s"}, scripts=late),
        switching(site, "--to", new.name),
    ):
        await_frozen(old)
        goal = old.gtid()
        until(lambda: sibling.gtid() == goal, "the sibling to have everything")
        assert new.gtid() != goal, "the candidate lacks something"
        new.sql("START SLAVE IO_THREAD")
    assert_order(site, new.name)
    for node in (old, sibling):
        assert node.replication()["Last_IO_Errno"] == 0
        assert "1236" not in node.log()


def test_a_candidate_whose_receiver_never_comes_back_is_given_up_and_follows_again(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    with books(site), configured(site, scripts=just_before(new, "STOP SLAVE IO_THREAD", old)):
        switched(site, "--to", new.name, code=4)
        assert site.cluster.writable == (old.name,)
        until(new.replicates, "the candidate to follow again")
    assert_order(site, old.name)


def test_the_candidate_dies_while_writes_are_blocked(site: Lab) -> None:
    old, new = site.cluster.primary, site.cluster[other(site)]
    late = just_before(new, "STOP SLAVE IO_THREAD", old)
    with books(site):
        with configured(site, scripts=late), switching(site, "--to", new.name, code=4):
            await_frozen(old)
            new.kill9()
        assert site.cluster.writable == (old.name,)
        new.start()
        until(new.replicates, "the candidate to follow again")
    assert_order(site, old.name)


# -- Newcomers --


def test_whoever_is_logging_in_when_newcomers_begin_to_be_held_may_still_write(site: Lab) -> None:
    site.cluster.primary.make_table("app.newcomers", "server INT NOT NULL")
    until_held = Deadline.after(60)
    with contextlib.ExitStack() as ends:

        def arrived() -> socket.socket:
            return ends.enter_context(socket.create_connection((site.write.host, site.write.port)))

        def write(client: socket.socket) -> None:
            with contextlib.closing(connect(site.write, over=client)) as session, session.cursor() as cursor:
                cursor.execute("INSERT INTO app.newcomers (server) VALUES (@@server_id)")

        with configured(site, switchover={"drain": "5s"}), switching(site):
            last = arrived()
            # one login is under way at any time, until a newcomer hears of no server
            while is_greeted(newer := arrived()):
                until_held.require("newcomers to be held")
                write(last)
                last = newer
            write(last)
        write(newer)
    assert_order(site)
    servers = [row["server"] for row in site.cluster.primary.sql("SELECT server FROM app.newcomers")]
    old, new = servers[0], site.cluster.primary.server_id
    assert servers.count(new) == 1, servers
    assert set(servers) == {old, new}, servers


def is_greeted(client: socket.socket) -> bool:
    """Whether a server has said who it is; the client has said nothing yet."""
    return bool(select.select([client], [], [], 1.0)[0])
