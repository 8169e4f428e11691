"""A physical copy of one MariaDB server put in place of another's data, by mariabackup on their hosts.

The copy is made and prepared beside the data of the target, which stays as it is meanwhile; then the server stops, two
folders change their names, and it starts. The old folder is kept until somebody says that it may go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from proxyroute.errors import ScriptFailed
from proxyroute.faults import act
from proxyroute.host import Host, pump, stream
from proxyroute.model import Deadline

_TRY = 'command -v "$1" >/dev/null || { echo "$1 is not installed there" >&2; exit 1; }'
_ROOM = 'df -Pk -- "$(dirname -- "$1")" | awk \'NR==2 {print $4}\''
_USED = 'du -sk -- "$1" | cut -f1'
_BACKUP = """
set -e
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/options"
mkdir "$work/tmp"
set -- --defaults-file="$work/options" --backup --stream=mbstream --datadir="$1" --target-dir="$work/tmp"
mariabackup "$@" 2>"$work/log" ||
    { tail -n 4 "$work/log" >&2; exit 1; }
"""
_UNPACK = """
set -e
rm -rf -- "$1.proxyroute-new"
mkdir -m 700 -- "$1.proxyroute-new"
mbstream -x -C "$1.proxyroute-new"
"""
_PREPARE = """
set -e
log=$(mariabackup --no-defaults --prepare --target-dir="$1.proxyroute-new" 2>&1) ||
    { echo "$log" | tail -n 4 >&2; exit 1; }
chown -R --reference="$1" -- "$1.proxyroute-new"
chmod --reference="$1" -- "$1.proxyroute-new"
sync
"""
_INFO = (
    'cat "$1.proxyroute-new"/xtrabackup_binlog_info "$1.proxyroute-new"/mariadb_backup_binlog_info 2>/dev/null || true'
)
_SWAP = """
set -e
[ -e "$2" ] || mv -- "$1" "$2"
[ -e "$1" ] || mv -- "$1.proxyroute-new" "$1"
sync
"""
_DISCARD = 'rm -rf -- "$1"'


def cannot_copy(source: Host, source_dir: str, target: Host, target_dir: str, deadline: Deadline) -> list[str]:
    """Returns why a copy could not be made, in words."""
    found = []
    for host, programs in ((source, ("mariabackup",)), (target, ("mariabackup", "mbstream"))):
        for program in programs:
            try:
                host.ask(_TRY, program, deadline=deadline)
            except ScriptFailed as error:
                found.append(f"on the host of {host.server}: {error}")
    if found:
        return found
    try:
        needed = int(source.ask(_USED, source_dir, deadline=deadline))
        room = int(target.ask(_ROOM, target_dir, deadline=deadline))
    except (ScriptFailed, ValueError) as error:
        return [str(error)]
    if room < needed * 1.1:
        return [f"no room beside the data of {target.server}: {room >> 10} MiB are free, {needed >> 10} are needed"]
    return []


def copy(
    source: Host,
    source_dir: str,
    options: str,
    target: Host,
    target_dir: str,
    watch: Callable[[int], None],
    deadline: Deadline,
) -> tuple[str, int]:
    """Makes and prepares the copy; returns the file and offset in the source's binary log at which it was taken."""
    with act("rejoin.copy"):
        backup = source.script(_BACKUP, source_dir, stdin=options.encode())
        pump(backup, target.script(_UNPACK, target_dir), deadline, watch)
    with act("rejoin.prepare_copy"):
        stream(target.script(_PREPARE, target_dir), lambda _: None, deadline)
    told = target.ask(_INFO, target_dir, deadline=deadline)
    found = re.match(r"(\S+)\s+(\d+)", told)
    if found is None:
        raise ScriptFailed(f"the copy of {source.server} does not tell its position: {json.dumps(told[:100])}")
    return found[1], int(found[2])


def swap(target: Host, target_dir: str, operation: str, deadline: Deadline) -> str:
    """Puts the copy in place, with the server stopped meanwhile; returns where the old data are."""
    old = old_folder(target_dir, operation)
    with act("rejoin.stop_server"):
        stream(target.program(*target.stop), lambda _: None, deadline)
    with act("rejoin.swap"):
        stream(target.script(_SWAP, target_dir, old), lambda _: None, deadline)
    with act("rejoin.start_server"):
        stream(target.program(*target.start), lambda _: None, deadline)
    return old


def discard(target: Host, folder: str, deadline: Deadline) -> None:
    """Removes the old data."""
    with act("rejoin.discard"):
        stream(target.script(_DISCARD, folder), lambda _: None, deadline)


def old_folder(target_dir: str, operation: str) -> str:
    """Returns where the data that were there before ``operation`` are kept."""
    return f"{target_dir}.proxyroute-old-{operation}"
