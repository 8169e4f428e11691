"""What every command has: the configuration, the cluster it is about, the engine, and how to write."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxyroute.cli.output import UNWRITABLE, Output, lose_stdout, stdout_lost
from proxyroute.config import ClusterConfig, Config, config_path, load
from proxyroute.errors import ConfigError, ProxyRouteError

if TYPE_CHECKING:
    from proxyroute.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130


class Context:
    """The global options of one run, and what follows from them."""

    def __init__(self) -> None:
        self.config_option: Path | None = None
        self.cluster_option: str | None = None
        self.as_json = False
        self.url = ""
        """The running daemon that is to be asked; empty: everything is done here."""
        self.token_file: Path | None = None
        self.ca_file: Path | None = None
        self.ends = ExitStack()
        """What is still to be done when everything is shown, errors as well."""

    @cached_property
    def out(self) -> Output:
        return Output(as_json=self.as_json)

    @property
    def config_file(self) -> Path:
        return config_path(self.config_option)

    @cached_property
    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        if self.url:
            raise ConfigError("this is not done by the API of a daemon; type it on its host, without --url")
        return load(self.config_file)

    @property
    def cluster(self) -> ClusterConfig:
        """The cluster that the command is about. Raises ConfigError when it has to be named."""
        return self.config.cluster(self.cluster_option)

    @contextmanager
    def engine(
        self, listener: Callable[[dict[str, Any]], None] | None = None, *, reads: bool = False
    ) -> Iterator[Engine]:
        """Opens the engine of the cluster and closes it; with ``reads`` nothing is written below state_dir.

        Raises ConfigError, also when we are not the one who may write there.
        """
        from proxyroute.engine import open_engine  # what a mere --help need not wait for

        if not reads:
            self.refuse_foreign_state()
        engine = open_engine(self.cluster, listener)
        try:
            yield engine
        finally:
            engine.close()

    def refuse_foreign_state(self) -> None:
        """Raises ConfigError when root would write in the state_dir of another user, who could not read that."""
        folder = self.config.state_dir
        try:
            owner = folder.stat().st_uid
        except OSError:  # it is not there yet, or whoever writes there learns what is the matter
            return
        if os.geteuid() != 0 or owner == 0 or _written_by(folder) == owner:
            return
        try:
            name = pwd.getpwuid(owner).pw_name
            instead = f"runuser -u {name} --"
        except KeyError:  # of another host, or of a container
            name = f"user {owner}"
            instead = f"setpriv --reuid {owner} --clear-groups --"
        raise ConfigError(
            f"{folder} belongs to {name}, who could not read what root writes there; nothing was touched. Type\n"
            f"  {instead} proxyroute {shlex.join(sys.argv[1:])}"
        )

    def command_line(self, *words: str) -> str:
        """Returns a command to type, with the options that it needs to be about the same cluster."""
        options: list[str] = []
        if self.config_option is not None:
            options += ["--config", str(self.config_option)]
        if self.cluster_option is not None:
            options += ["--cluster", self.cluster_option]
        if self.url:
            options += ["--url", self.url]
        for option, file in (("--token-file", self.token_file), ("--ca", self.ca_file)):
            options += [option, str(file)] if file is not None else []
        return " ".join(["proxyroute", *words, *options])


pass_context = click.make_pass_decorator(Context, ensure=True)


def _written_by(folder: Path) -> int | None:
    """Returns whose our files in ``folder`` are: on a network disk that need not be us. None: nobody can tell."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return None


def _setter(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        context = ctx.ensure_object(Context)
        if value:
            setattr(context, attribute, value)

    return keep


def common_options(function: F) -> F:
    """Adds the options that every command has; they may stand before or after its name."""
    options = (
        _config_option("Configuration file; else $PROXYROUTE_CONFIG, else /etc/proxyroute/proxyroute.yml."),
        click.option(
            "--cluster",
            metavar="NAME",
            expose_value=False,
            callback=_setter("cluster_option"),
            help="Which cluster; needed only when several are configured.",
        ),
        _json_option(),
        click.option(
            "--url",
            expose_value=False,
            callback=_setter("url"),
            help="Ask the daemon there, by its API, e.g. https://engine:8480; token from $PROXYROUTE_TOKEN.",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_setter("token_file"),
            help="The token for --url is in this file.",
        ),
        click.option(
            "--ca",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_setter("ca_file"),
            help="The certificate that signed the daemon's; else those that this host trusts.",
        ),
    )
    return _with(options, function)


def agent_options(function: F) -> F:
    """Adds what of that an agent's command has: it knows nothing of the engine's configuration, nor of a daemon."""
    return _with((_config_option("The agent's own file; else /etc/proxyroute/agent.yml."), _json_option()), function)


def _with(options: Sequence[Callable[[F], F]], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def _config_option(told: str) -> Callable[[F], F]:
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_setter("config_option"),
        help=told,
    )


def _json_option() -> Callable[[F], F]:
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_setter("as_json"),
        help="Write one JSON object instead of text.",
    )


class CommandGroup(click.Group):
    """Turns what ProxyRoute raises into a message and the exit code that stands for it."""

    def invoke(self, ctx: click.Context) -> Any:
        context = ctx.ensure_object(Context)
        try:
            returned = super().invoke(ctx)
        except ProxyRouteError as error:
            with context.out.ended(error.exit_code):
                context.out.error(error)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted; `proxyroute status` tells whether something is left to do", err=True)
            ctx.exit(INTERRUPTED)
        except OSError as error:
            if error.errno not in UNWRITABLE or error.filename is not None:
                raise
            lose_stdout(error)
            ctx.exit(ProxyRouteError.exit_code)
        else:
            if stdout_lost():
                ctx.exit(ProxyRouteError.exit_code)
            return returned
        finally:
            context.ends.close()
            stdout_lost()


def on_terminal() -> bool:
    """Tells whether somebody can be asked."""
    return sys.stdin.isatty()
