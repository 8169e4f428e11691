"""Secrets: where they come from, that they are never shown, and what is said when they cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyroute.config import Secret
from proxyroute.errors import ConfigError
from proxyroute.model import Severity


def test_a_secret_is_read_without_the_line_end_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "p").write_text(" pass word \r\n")
    assert Secret("file", str(tmp_path / "p")).reveal() == " pass word "


def test_a_credential_is_read_from_the_folder_that_systemd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engine").write_text("x\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Secret("credential", "engine").reveal() == "x"


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("file", "none", "does not exist; write the password into it"),
        ("file", "empty", "is empty; it must hold the password"),
        ("file", "binary", "is not UTF-8"),
        ("file", ".", "cannot be read"),
        ("env", "PROXYROUTE_TEST_UNSET", "is not set; set it where proxyroute is started"),
        ("credential", "engine", "LoadCredential=engine:/etc/proxyroute/credentials/engine"),
    ],
)
def test_a_secret_that_cannot_be_read_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, said: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    secret = Secret(kind, str(tmp_path / source) if kind == "file" else source)
    with pytest.raises(ConfigError, match=said):
        secret.reveal()
    finding = secret.finding("account")
    assert finding is not None
    assert (finding.severity, finding.subject) == (Severity.ERROR, "account")


def test_a_secret_that_everyone_can_read_is_a_warning_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_text("x")
    path.chmod(0o644)
    secret = Secret("file", str(path))
    finding = secret.finding("account")
    assert finding is not None
    assert (finding.severity, finding.cure) == (Severity.WARNING, f"chmod o-rwx {path}")
    path.chmod(0o600)
    assert secret.finding("account") is None
