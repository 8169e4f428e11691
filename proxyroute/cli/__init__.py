"""The command line: ``main`` is what ``proxyroute`` runs. Each command is small and in a file of its own kind."""

from __future__ import annotations

import click

from proxyroute import __version__
from proxyroute.cli import (
    agent,
    calling_off,
    check,
    failover,
    grants,
    history,
    init,
    notices,
    orders,
    plan,
    proxies,
    rejoin,
    serve,
    status,
    switchover,
    token,
)
from proxyroute.cli.context import CommandGroup, common_options

__all__ = ["main"]


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="proxyroute")
@common_options
def main() -> None:
    """Moves the primary of a MariaDB or MySQL cluster, and makes the traffic follow.

    \b
    First time:  proxyroute init, grants, check, publish
    Every time:  proxyroute status, plan, switchover
    If killed:   proxyroute heal
    Always:      proxyroute serve
    Afterwards:  proxyroute rejoin, verify
    Proxy host:  proxyroute agent, agent status

    \b
    Exit codes
      0    done, or nothing to do
      1    something failed that has no code of its own
      2    the configuration or the command line is wrong
      3    refused: nothing was touched (check: there are errors)
      4    aborted: everything was undone, the old primary takes writes
           unless it has died
      5    unfinished: type `proxyroute heal`
      6    another operation holds the cluster, or acted since
      7    done, but something is left to do, or the proof has a gap
      130  interrupted
    """


for _command in (
    init.init,
    grants.grants,
    check.check,
    status.status,
    plan.plan,
    switchover.switchover,
    failover.failover,
    calling_off.call_off,
    switchover.heal,
    rejoin.rejoin,
    rejoin.verify,
    orders.maintenance,
    orders.pause,
    orders.resume,
    orders.prefer,
    orders.never,
    orders.orders,
    history.history,
    history.show,
    proxies.render,
    proxies.publish,
    serve.serve,
    notices.notices,
    token.token,
    agent.agent,
):
    main.add_command(_command)
