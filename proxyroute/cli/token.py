"""``proxyroute token``: who may use the pages and the API of ``proxyroute serve``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from proxyroute.cli.context import Context, common_options, pass_context
from proxyroute.config_shape import parse_duration

if TYPE_CHECKING:
    from proxyroute.web.tokens import Tokens

_SCOPES = ("read", "operate", "admin")


@click.group(short_help="Make, list and revoke tokens for the pages and the API.")
@common_options
def token() -> None:
    """Make, list and revoke tokens for the pages and the API of `proxyroute serve`.

    There is none until one is made. The file holds hashes only; a daemon that runs takes up every change at once.
    """


@token.command(short_help="Make a token and show it, once.")
@click.argument("name")
@click.option("--scope", type=click.Choice(_SCOPES), default="read", show_default=True, help="What it may do.")
@click.option("--for", "lasting", metavar="DURATION", help="Ends by itself after this time, e.g. 720h; else never.")
@common_options
@pass_context
def create(ctx: Context, name: str, scope: str, lasting: str | None) -> None:
    """Make a token called NAME and show it, once: nobody can show it again."""
    from proxyroute.web.tokens import Scope

    try:
        seconds = parse_duration(lasting) if lasting is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error
    text, made = _tokens(ctx).create(name, Scope.parse(scope), seconds)
    if ctx.as_json:
        ctx.out.json({"name": name, "id": made.id, "scope": scope, "expires": made.expires, "token": text})
    else:
        ctx.out.raw(text)


@token.command(name="list", short_help="List the tokens.")
@common_options
@pass_context
def list_(ctx: Context) -> None:
    """List the tokens: name, what they may do, since when, until when. Never the tokens themselves."""
    found = _tokens(ctx).all()
    if ctx.as_json:
        rows = [
            {"name": t.name, "id": t.id, "scope": str(t.scope), "created": t.created, "expires": t.expires}
            for t in found
        ]
        ctx.out.json({"tokens": rows})
    elif not found:
        ctx.out.line("there is no token; make one: proxyroute token create NAME --scope operate")
    else:
        rows_ = [
            (t.name, t.id, str(t.scope), _day(t.created), _day(t.expires) if t.expires else "never") for t in found
        ]
        ctx.out.table(("Name", "Id", "Scope", "Made", "Ends"), rows_)


@token.command(short_help="End a token.")
@click.argument("name")
@common_options
@pass_context
def revoke(ctx: Context, name: str) -> None:
    """End the token called NAME (its id will do), and every session that was made from it."""
    _tokens(ctx).revoke(name)
    ctx.out.line(f"{name} is revoked", "good")


def _tokens(ctx: Context) -> Tokens:
    from proxyroute.web.tokens import Tokens

    return Tokens(ctx.config.tokens_file)


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
