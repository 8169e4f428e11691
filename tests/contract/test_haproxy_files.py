"""HAProxy's files: rendered, tried out, written whole; a reload only with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyroute.errors import ConfigError
from proxyroute.haproxy.render import render
from proxyroute.haproxy.settings import Settings
from proxyroute.model import Address, Endpoint, Epoch, Reader, ReceiptState, RouteTable, Severity
from tests.contract.subjects import HAProxySubject, soon, table

FLAVOURS = ("mariadb-11.8",)

SERVERS = (Endpoint("db1", Address("10.0.0.1", 3306)), Endpoint("db2", Address("fd00::2", 3307)))
OURS = '{% extends "haproxy.cfg.j2" %}\n'


def settings(folder: Path, **more: object) -> Settings:
    return Settings(config_file=folder / "haproxy.cfg", write="*:3306", read="127.0.0.1:3307", **more)  # type: ignore[arg-type]


def everything(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file, sockets and log aside."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".log"
    }


def test_the_same_route_renders_to_the_same_bytes(tmp_path: Path) -> None:
    route = table(SERVERS, (1, 1), "db1")
    assert render(route, settings(tmp_path)) == render(route, settings(tmp_path))


def test_primary_epoch_and_readers_are_no_part_of_the_structure(tmp_path: Path) -> None:
    first = render(table(SERVERS, (1, 1), "db1"), settings(tmp_path))
    second = render(table(SERVERS, (7, 2), "db2", {"db1": 3}), settings(tmp_path))
    assert first.structure == second.structure
    assert first.map != second.map


def test_an_address_is_part_of_the_structure(tmp_path: Path) -> None:
    moved = (Endpoint("db1", Address("10.0.0.9", 3306)), SERVERS[1])
    first = render(table(SERVERS, (1, 1), "db1"), settings(tmp_path))
    assert render(table(moved, (1, 1), "db1"), settings(tmp_path)).structure != first.structure


def test_readers_are_in_the_file_with_their_weights(tmp_path: Path) -> None:
    lines = render(table(SERVERS, (1, 1), "db1", {"db2": 42}), settings(tmp_path)).config.splitlines()
    (reader,) = [line for line in lines if "[fd00::2]:3307 check" in line]
    (other,) = [line for line in lines if "10.0.0.1:3306 check" in line]
    assert "weight 42" in reader
    assert not reader.endswith("disabled")
    assert other.endswith("disabled")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (OURS + "{% block more %}\n{{ primary }}\n{% endblock %}\n", ":3: 'primary' is undefined"),
        ("# {{ mark }}\n\n{% if %}\n", ":3: "),
        ("# {{ mark }}\n{% for s in servers %}{{ s.port }}{% endfor %}\n", ":2: "),
        (OURS + "{% block more %}\n{{ 1 / 0 }}{% endblock %}\n", ":3: division by zero"),
        ('{% extends "nothing.j2" %}\n', "nothing.j2"),
        ("# {{ mark }}\nglobal\n", "description proxyroute"),
        (OURS[:-1] + "{% block more %}{{ structure }", ":1: "),
    ],
)
def test_a_template_with_a_mistake_is_refused_with_file_and_line(tmp_path: Path, text: str, complaint: str) -> None:
    own = tmp_path / "own.cfg.j2"
    own.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        render(table(SERVERS, (1, 1), "db1"), settings(tmp_path, template=own))
    assert f"{own}" in str(refusal.value)
    assert complaint in str(refusal.value)


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="own"):
        render(table(SERVERS, (1, 1), "db1"), settings(tmp_path, template=tmp_path / "own.cfg.j2"))


def test_a_name_haproxy_cannot_have_is_refused(tmp_path: Path) -> None:
    odd = (Endpoint("db 1", Address("10.0.0.1", 3306)),)
    with pytest.raises(ConfigError, match="'db 1'"):
        render(RouteTable("shop", Epoch(1, 1), odd, "db 1", (Reader("db 1", 1),)), settings(tmp_path))


@pytest.mark.parametrize(
    ("field", "value"),
    [("write", ""), ("write", "10.0.0.1"), ("read", "nonsense:port"), ("stats", "a b:1"), ("user", "a b")],
)
def test_settings_name_the_field_that_is_wrong(tmp_path: Path, field: str, value: str) -> None:
    values = {"config_file": tmp_path / "haproxy.cfg", "write": "*:3306", field: value}
    with pytest.raises(ValueError, match=f"^{field}: "):
        Settings(**values)  # type: ignore[arg-type]


def test_a_path_haproxy_could_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^config_file: "):
        Settings(config_file=Path("/etc/my proxy/haproxy.cfg"), write="*:3306")


def test_rendering_shows_what_installing_writes(proxy: HAProxySubject) -> None:
    route = proxy.table((1, 1), "db1")
    for file, text in proxy.adapter().render(route).items():
        assert Path(file).read_text() == text


def test_a_configuration_haproxy_rejects_is_refused_in_its_words_and_nothing_changes(proxy: HAProxySubject) -> None:
    own = proxy.folder / "own.cfg.j2"
    own.write_text(OURS + "{% block global_more %}\n    no-such-keyword 1\n{% endblock %}\n")
    adapter = proxy.adapter(template=own)
    before, pids = everything(proxy.folder), proxy.haproxy.workers()
    receipt = adapter.prepare(proxy.table((1, 2), "db2"), proxy.table((1, 1), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "unknown keyword 'no-such-keyword'" in receipt.detail
    assert f"{proxy.settings.config_file}:" in receipt.detail
    assert everything(proxy.folder) == before
    assert proxy.haproxy.workers() == pids
    assert "haproxy.rejected" in {finding.code for finding in adapter.check(soon())}


def test_a_broken_template_is_refused_before_anything_is_touched(proxy: HAProxySubject) -> None:
    own = proxy.folder / "own.cfg.j2"
    own.write_text(OURS + "{% block more %}\n{{ nothing }}\n{% endblock %}\n")
    adapter = proxy.adapter(template=own)
    before = everything(proxy.folder)
    receipt = adapter.prepare(proxy.table((1, 2), "db2"), proxy.table((1, 1), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert f"{own}:3" in receipt.detail
    assert everything(proxy.folder) == before
    assert "haproxy.template" in {finding.code for finding in adapter.check(soon())}


@pytest.mark.parametrize(
    "text", ["{% block more %}\n{{ nothing }}\n{% endblock %}\n", "{% block more %}\nbad\n{% endblock %}\n"]
)
def test_a_route_settled_over_a_broken_template_outlives_a_restart(proxy: HAProxySubject, text: str) -> None:
    own = proxy.folder / "own.cfg.j2"
    own.write_text(OURS + text)
    receipt = proxy.adapter(template=own).settle(proxy.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.FAILED
    proxy.haproxy.kill9()
    proxy.haproxy.start(proxy.settings.config_file)
    with proxy.client() as client:
        assert client.server == "db2"


def test_somebody_elses_configuration_is_never_overwritten(proxy: HAProxySubject) -> None:
    file = proxy.settings.config_file
    file.write_text("global\n  maxconn 100\n")
    adapter = proxy.adapter()
    target = proxy.table((1, 2), "db2")
    for receipt in (
        adapter.prepare(target, proxy.table((1, 1), "db1"), soon()),
        adapter.install(target, soon()),
        adapter.settle(target, soon()),
    ):
        assert receipt.state is ReceiptState.FAILED
        assert "not written by ProxyRoute" in receipt.detail
    assert file.read_text() == "global\n  maxconn 100\n"
    (finding,) = [f for f in adapter.check(soon()) if f.code == "haproxy.foreign"]
    assert f"mv {file}" in finding.cure


def test_another_structure_is_loaded_before_the_operation_with_a_reason(proxy: HAProxySubject) -> None:
    (worker,) = proxy.haproxy.workers()
    changed = proxy.adapter(hard_stop_after=77.0)
    assert changed.observe(soon()).drift
    receipt = changed.prepare(proxy.table((1, 2), "db2"), proxy.table((1, 1), "db1"), soon())
    assert receipt.state is ReceiptState.PREPARED, receipt
    assert "is to replace" in receipt.evidence["reload"]
    assert proxy.haproxy.workers() == [receipt.evidence["pid"]]
    assert receipt.evidence["pid"] != worker
    seen = changed.observe(soon())
    assert (seen.primary, seen.drift) == ("db1", ())


def test_nothing_is_reloaded_without_a_reason(proxy: HAProxySubject) -> None:
    pids = proxy.haproxy.workers()
    adapter = proxy.adapter()
    for serial, primary in ((2, "db2"), (3, "db3")):
        target = proxy.table((1, serial), primary)
        assert adapter.prepare(target, proxy.table((1, serial - 1), "db1"), soon()).state is ReceiptState.PREPARED
        assert adapter.settle(target, soon()).state is ReceiptState.DONE
    assert proxy.haproxy.workers() == pids


def test_a_reload_that_fails_puts_the_files_back_and_the_old_process_serves_on(proxy: HAProxySubject) -> None:
    before = proxy.settings.config_file.read_text()
    # accepted by a trial, which binds nothing; refused by the process that is to serve
    busy = proxy.adapter(stats=str(proxy.stand_ins["db3"].address))
    receipt = busy.prepare(proxy.table((1, 2), "db2"), proxy.table((1, 1), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "did not take the configuration" in receipt.detail
    assert proxy.settings.config_file.read_text() == before
    with proxy.client() as client:
        assert client.server == "db1"
    assert proxy.adapter().observe(soon()).drift == ()


def test_edits_of_the_files_are_seen_and_taken_back(proxy: HAProxySubject) -> None:
    adapter = proxy.adapter()
    config = proxy.settings.config_file
    config.write_text(config.read_text().replace("timeout connect 3s", "timeout connect 9s"))
    proxy.settings.lua_file.write_text("-- nothing\n")
    drift = adapter.observe(soon()).drift
    assert [text for text in drift if str(config) in text and "line" in text]
    assert [text for text in drift if str(proxy.settings.lua_file) in text]
    assert adapter.settle(proxy.table((1, 1), "db1"), soon()).state is ReceiptState.DONE
    assert adapter.observe(soon()).drift == ()


def test_a_torn_map_file_is_seen_and_written_anew(proxy: HAProxySubject) -> None:
    adapter = proxy.adapter()
    proxy.settings.map_file.write_text("route db")
    assert [text for text in adapter.observe(soon()).drift if str(proxy.settings.map_file) in text]
    assert adapter.settle(proxy.table((1, 1), "db1"), soon()).state is ReceiptState.DONE
    assert adapter.observe(soon()).drift == ()


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("set server shop_write_db2/db2 addr 127.0.0.9 port 3999", "127.0.0.9:3999"),
        ("set server shop_write_db1/db1 state maint", "shop_write_db1/db1 is in maintenance"),
        ("set server shop_read/db2 state maint", "db2 gets no reads"),
        ("set server shop_read/db1 state ready", "db1 gets reads"),
        ("set server shop_read/db3 weight 7", "db3 reads with weight 7"),
    ],
)
def test_changes_in_memory_are_drift(proxy: HAProxySubject, command: str, seen: str) -> None:
    proxy.runtime(command)
    (drift,) = proxy.adapter().observe(soon()).drift
    assert seen in drift


def test_a_server_moved_in_memory_is_no_proof(proxy: HAProxySubject) -> None:
    proxy.runtime("set server shop_write_db2/db2 addr 127.0.0.9 port 3999")
    receipt = proxy.adapter().settle(proxy.table((1, 2), "db2"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "127.0.0.9:3999" in receipt.detail


def test_a_haproxy_with_another_configuration_is_found(proxy: HAProxySubject) -> None:
    other = proxy.folder / "other.cfg"
    text = proxy.settings.config_file.read_text()
    other.write_text("\n".join(line for line in text.splitlines() if "stats socket" in line or line == "global"))
    other.write_text(f"{other.read_text()}\ndefaults\n  mode tcp\nfrontend theirs\n  bind {proxy.write}\n")
    proxy.haproxy.stop()
    proxy.haproxy.start(other)
    adapter = proxy.adapter()
    target = proxy.table((1, 2), "db2")
    for receipt in (
        adapter.prepare(target, proxy.table((1, 1), "db1"), soon()),
        adapter.hold("op", soon()),
        adapter.release(soon()),
        adapter.apply(target, soon()),
    ):
        assert receipt.state is ReceiptState.FAILED
        assert "not ours" in receipt.detail
    assert adapter.observe(soon()).primary is None


def test_a_disk_that_takes_no_files_is_found_before_the_operation(
    proxy: HAProxySubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = everything(proxy.folder)
    monkeypatch.setattr(os, "fsync", full)
    receipt = proxy.adapter().prepare(proxy.table((1, 2), "db2"), proxy.table((1, 1), "db1"), soon())
    assert receipt.state is ReceiptState.FAILED
    assert "No space left on device" in receipt.detail
    assert everything(proxy.folder) == before


def test_what_a_killed_process_left_beside_the_files_is_removed(proxy: HAProxySubject) -> None:
    gone = proxy.folder / ".haproxy.cfg.999999.new"
    gone.write_text("half of")
    trial = proxy.folder / ".haproxy.cfg.999999.trial"
    trial.mkdir()
    assert proxy.adapter().settle(proxy.table((1, 2), "db2"), soon()).state is ReceiptState.DONE
    assert not gone.exists()
    assert not trial.exists()


def test_a_binary_without_lua_is_an_error_with_its_cure(proxy: HAProxySubject) -> None:
    fake = proxy.folder / "haproxy"
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = -vv ] && { echo 'HAProxy version 2.6.12 - x'; echo 'Feature list : -LUA'; }\nexit 0\n"
    )
    fake.chmod(0o755)
    (finding,) = [f for f in proxy.adapter(binary=str(fake)).check(soon()) if f.severity is Severity.ERROR]
    assert finding.code == "haproxy.lua"
    assert "USE_LUA=1" in finding.cure


@pytest.mark.parametrize("binary", ["/nowhere/haproxy", "/bin/true"])
def test_a_binary_that_is_not_haproxy_is_an_error(proxy: HAProxySubject, binary: str) -> None:
    assert "haproxy.binary" in {f.code for f in proxy.adapter(binary=binary).check(soon())}


def test_a_host_name_is_pointed_out(proxy: HAProxySubject) -> None:
    servers = (Endpoint("db1", Address("localhost", proxy.servers[0].address.port)), *proxy.servers[1:])
    adapter = proxy.kind("edge1", "shop", servers, proxy.settings)
    assert "haproxy.lookup" in {finding.code for finding in adapter.check(soon())}


def test_the_runtime_socket_is_for_its_owner_only(proxy: HAProxySubject) -> None:
    assert proxy.settings.runtime_socket.stat().st_mode & 0o777 == 0o600
