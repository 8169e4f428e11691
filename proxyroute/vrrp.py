"""The configuration of keepalived on proxy hosts that share a virtual address: text, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from proxyroute.config_vrrp import VrrpConfig

FILE = "/etc/keepalived/keepalived.conf"
"""Where keepalived looks for it."""
_SCRIPT = "route"
_CURRENT = "current"
_PROCESS = "haproxy"
PRIORITY = 100
"""The same for all: only a host that steps back loses the address to one that lives."""
_INDENT = "    "


def keepalived(cluster: str, config: VrrpConfig, host: str) -> str:
    """Returns the whole file for ``host``, one of ``config.hosts``. The same configuration gives the same text."""
    return "\n".join([*_head(config), *_instance(cluster, config, host)]) + "\n"


def _head(config: VrrpConfig) -> Iterator[str]:
    yield "# Written by proxyroute render keepalived; docs/guide/vrrp.md says why each line is there."
    yield from _block(
        "global_defs",
        [
            "enable_script_security               # no script that others than its user could have changed",
            f"script_user {config.script_user}",
            "vrrp_check_unicast_src               # what somebody else sends is not listened to",
        ],
    )
    yield from _block(
        f"vrrp_script {_SCRIPT}", [f'script "{" ".join(config.check)}"', "interval 1", "timeout 10", "fall 2", "rise 2"]
    )
    yield from _block(
        f"vrrp_track_file {_CURRENT} # the agent lowers the priority of a host that may know less",
        [f'file "{config.priority_file}"', "weight 1", "init_file 0"],
    )
    if config.track_process:
        yield from _block(f"vrrp_track_process {_PROCESS}", [f"process {config.track_process}"])


def _instance(cluster: str, config: VrrpConfig, host: str) -> Iterator[str]:
    whole = config.advertisement == int(config.advertisement)
    others = [address for name, address in config.hosts.items() if name != host]
    yield from _block(
        f"vrrp_instance {cluster}",
        [
            *([] if whole else ["version 3                            # the other one knows whole seconds only"]),
            "state BACKUP                         # on every host, and equal: who comes back takes nothing away",
            f"interface {config.interface_of(host)}",
            f"virtual_router_id {config.router_id}",
            f"priority {PRIORITY}",
            f"advert_int {config.advertisement:g}",
            "garp_master_refresh 10               # tells the switches again and again who has it",
            f"unicast_src_ip {config.hosts[host]}",
            *_block("unicast_peer", others),
            *_block("virtual_ipaddress", config.addresses),
            *_block("track_script", [_SCRIPT]),
            *_block("track_file", [_CURRENT]),
            *(_block("track_process", [_PROCESS]) if config.track_process else []),
        ],
    )


def _block(head: str, lines: list[str] | tuple[str, ...]) -> list[str]:
    return [_opened(head), *(f"{_INDENT}{line}" for line in lines), "}"]


def _opened(head: str) -> str:
    """Returns the first line of a block; what is said about it stands behind the brace."""
    words, mark, comment = head.partition("#")
    return f"{words.rstrip()} {{" + (f"  {mark}{comment}" if mark else "")
