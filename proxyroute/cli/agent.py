"""``proxyroute agent``: what runs on a proxy host, and what it says about itself there."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxyroute.cli.context import Context, agent_options, pass_context
from proxyroute.cli.output import styled
from proxyroute.errors import ConfigError

if TYPE_CHECKING:
    from proxyroute.config_agent import AgentConfig

_HERE = {True: "here", False: "not here", None: "here or not, nobody can tell"}


@click.group(invoke_without_command=True, short_help="Follow a shared folder, on a proxy host.")
@agent_options
@click.pass_context
def agent(click_context: click.Context) -> None:
    """Follow a shared folder on this proxy host and drive the HAProxy here, in the foreground.

    Ends by SIGTERM or SIGINT; HAProxy goes on as it is.
    """
    if click_context.invoked_subcommand is None:
        file = _file(click_context.ensure_object(Context))
        # a process of its own kind: without a database driver and without the engine in it
        os.execv(sys.executable, [sys.executable, "-m", "proxyroute.agent", str(file)])


@agent.command(short_help="What the agent on this host does, and what keeps it from it.")
@agent_options
@pass_context
def status(ctx: Context) -> None:
    """Show what the agent on this host follows, its last receipt, and what troubles it.

    Reads only this host's disk: it answers when the shared folder does not.

    \b
    Exit codes
      0  no trouble
      1  the agent does not run, has never run, or has trouble
    """
    config = _load(_file(ctx))
    told = _told(config.status_file)
    running = _runs(config)
    if why := _mute(config):
        text = f"the agent cannot write in {config.state_dir} ({why}): what it last said here may not be so any more"
        told = {**told, "trouble": [text, *told.get("trouble", ())]}
    if ctx.as_json:
        ctx.out.json({**told, "running": running})
    else:
        for label, value in (
            ("Host", f"{config.host} ({config.cluster})"),
            ("Agent", styled("runs", "good") if running else styled("does not run", "bad")),
            ("Folder", f"{config.folder}, {told.get('watch', '')}"),
            ("Route", f"{told.get('primary') or 'closed'}, epoch {told.get('epoch') or 'none yet'}"),
            ("Last", " ".join(str(told.get(k) or "") for k in ("phase", "operation", "state", "detail")).strip()),
            ("Receipt", "written" if told.get("acknowledged") else "not written"),
            *[("Address", f"{a} is {_HERE[here]}") for a, here in told.get("addresses", {}).items()],
            ("Since", time.strftime("%F %T", time.localtime(told["since"])) if "since" in told else "never"),
        ):
            ctx.out.line(f"{label:8} {value}")
        for text in told.get("trouble", ()):
            ctx.out.line(f"{styled('trouble', 'bad')}  {text}")
    if not running or not told or told.get("trouble"):
        raise SystemExit(1)


def _file(ctx: Context) -> Path:
    from proxyroute.config_agent import DEFAULT_PATH  # what a mere --help need not wait for

    return ctx.config_option or DEFAULT_PATH


def _load(file: Path) -> AgentConfig:
    from proxyroute.config_agent import load_agent

    return load_agent(file)


def _told(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        time.localtime(found.get("since", 0.0))
        dict(found.get("addresses", {}).items())
        list(map(str.strip, found.get("trouble", ())))
    except (AttributeError, TypeError, ValueError, OverflowError, OSError):
        raise ConfigError(f"{file} is not what an agent writes; remove it and start the agent anew") from None
    return found


def _mute(config: AgentConfig) -> str:
    from proxyroute.agent_memory import mute

    return mute(config.state_dir)


def _runs(config: AgentConfig) -> bool:
    from proxyroute.agent_memory import is_locked

    return is_locked(config.state_dir)
