"""Adapters are found by entry points, and a broken one says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.adapters import find_adapter, find_adapters
from proxyroute.adapters.haproxy import HAProxyAdapter
from proxyroute.errors import ConfigError


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, entry: str, code: str = "") -> None:
    """Makes a folder in which ``package`` is installed with one entry point and one module of its name."""
    place = folder / package
    info = place / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[proxyroute.adapters]\n{entry}\n")
    (place / f"{package}.py").write_text(code)
    monkeypatch.syspath_prepend(place)


def test_our_own_adapters_are_there() -> None:
    assert find_adapters()["haproxy"] is HAProxyAdapter
    assert find_adapter("hook").__name__ == "HookAdapter"


def test_an_adapter_of_another_package_is_found(third_party: None) -> None:
    assert find_adapter("toy").__name__ == "ToyAdapter"


def test_an_adapter_that_is_not_installed_is_named_beside_those_that_are() -> None:
    with pytest.raises(ConfigError, match="no adapter 'f5' is installed; there are: haproxy, haproxy-agents, hook"):
        find_adapter("f5")


def test_two_packages_with_the_same_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "rival", "haproxy = rival:Mine", "class Mine: pass")
    with pytest.raises(ConfigError, match=r"two packages bring an adapter called 'haproxy'.*rival"):
        find_adapters()


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError"),
        ("raise RuntimeError('bad day')", "cannot be imported: RuntimeError: bad day"),
        ("", "cannot be imported: AttributeError"),
        ("Mine = 3", "misconfigured: it names no class"),
        ("class Mine:\n    def check(self): ...", "misconfigured: Mine has no prepare, hold"),
    ],
)
def test_a_broken_adapter_says_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    install(tmp_path, monkeypatch, "broken", "mine = broken:Mine", code)
    monkeypatch.delitem(__import__("sys").modules, "broken", raising=False)
    with pytest.raises(ConfigError, match="mine") as refusal:
        find_adapter("mine")
    assert complaint in str(refusal.value)
    assert find_adapter("hook")


def test_settings_that_are_no_dataclass_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from proxyroute.adapters.hook import HookAdapter\nclass Mine(HookAdapter):\n    Settings = dict\n"
    install(tmp_path, monkeypatch, "nosettings", "mine = nosettings:Mine", code)
    with pytest.raises(ConfigError, match=r"Mine\.Settings is not a dataclass"):
        find_adapter("mine")
