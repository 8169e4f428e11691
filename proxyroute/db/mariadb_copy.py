"""A physical copy of one MariaDB server put in place of another's data, by mariabackup on their hosts.

The copy is made and prepared beside the data of the target, which stays as it is meanwhile; then the server stops, two
folders change their names, and it starts. The old folder is kept until somebody says that it may go.

Every script that changes something asks first, over there, whose work this is (``host_owner``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from proxyroute.db.host_owner import OURS, SERVICE, Ownership, start_server
from proxyroute.errors import ScriptFailed
from proxyroute.faults import act
from proxyroute.host import Host, output, pump, stream
from proxyroute.model import Deadline

_TRY = 'command -v "$1" >/dev/null || { echo "$1 is not installed there" >&2; exit 1; }'
_MOUNTED = """
if command -v mountpoint >/dev/null; then
    ! mountpoint -q -- "$1"
else
    [ ! -e "$1" ] || [ "$(stat -c %d -- "$1")" = "$(stat -c %d -- "$1/..")" ]
fi || echo mounted
"""
_ROOM = 'df -Pk -- "$(dirname -- "$1")" | awk \'NR==2 {print $4}\''
_ROOM_INSIDE = "df -Pk -- \"$1\" | awk 'NR==2 {print $4}'"
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
_UNPACK = (
    OURS
    + """
rm -rf -- "$1".proxyroute-new "$1".proxyroute-new-*
mkdir -m 700 -- "$1.proxyroute-new-$2"
mbstream -x -C "$1.proxyroute-new-$2"
"""
)
_PREPARE = (
    OURS
    + """
log=$(mariabackup --no-defaults --prepare --target-dir="$1.proxyroute-new-$2" 2>&1) ||
    { echo "$log" | tail -n 4 >&2; exit 1; }
chown -R --reference="$1" -- "$1.proxyroute-new-$2"
chmod --reference="$1" -- "$1.proxyroute-new-$2"
sync
ours "$1" "$2"
mv -- "$1.proxyroute-new-$2" "$1.proxyroute-new"
sync
"""
)
_CLEAR = (
    OURS
    + """
rm -rf -- "$1".proxyroute-new "$1".proxyroute-new-*
"""
)
_INFO = (
    OURS
    + """
cd -- "$1.proxyroute-new-$2"
cat xtrabackup_binlog_info mariadb_backup_binlog_info 2>/dev/null || true
"""
)
_SWAP = (
    OURS
    + """
[ -e "$3" ] || mv -- "$1" "$3"
[ -e "$1" ] || mv -- "$1.proxyroute-new" "$1" || { mv -- "$3" "$1"; exit 1; }
sync
"""
)
_START_AGAIN = 60.0
_CLEAR_TIME = 60.0
_DISCARD = (
    OURS
    + """
rm -rf -- "$3"
rm -f -- "$1.proxyroute-owner"
"""
)


def cannot_copy(source: Host, source_dir: str, target: Host, target_dir: str, deadline: Deadline) -> list[str]:
    """Returns why a copy could not be made, in words."""
    found = []
    for host, programs in ((source, ("mariabackup",)), (target, ("mariabackup", "mbstream"))):
        for program in programs:
            try:
                host.ask(_TRY, program, deadline=deadline)
            except ScriptFailed as error:
                found.append(f"on the host of {host.server}: {error}")
    try:
        if target.ask(_MOUNTED, target_dir, deadline=deadline).strip():
            found.append(f"{target_dir} of {target.server} is a mount point, and no other folder can take its place")
    except ScriptFailed as error:
        found.append(f"on the host of {target.server}: {error}")
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


def cannot_load(target: Host, target_dir: str, needed: int, freed: int, deadline: Deadline) -> list[str]:
    """Returns that ``needed`` bytes of data do not fit where ``freed`` bytes are dropped first, in words."""
    room = (int(target.ask(_ROOM_INSIDE, target_dir, deadline=deadline)) << 10) + freed
    if room < needed * 1.1:
        return [f"no room for the data on the host of {target.server}: {room >> 20} MiB, {needed >> 20} are needed"]
    return []


def clear(target: Host, target_dir: str, ownership: Ownership) -> None:
    """Removes a copy that could not be made, whatever is more urgent."""
    script = ownership.begun(target, _CLEAR, target_dir)
    with act("rejoin.discard"):
        stream(script, lambda _: None, Deadline.firm(_CLEAR_TIME))


def copy(
    source: Host,
    source_dir: str,
    options: str,
    target: Host,
    target_dir: str,
    ownership: Ownership,
    watch: Callable[[int], None],
    deadline: Deadline,
) -> tuple[str, int]:
    """Makes the copy; returns the file and offset in the source's binary log at which it was taken.

    ``prepare`` comes next. It may take long, and by then the source may have purged that file.
    """
    unpack = ownership.script(target, _UNPACK, target_dir, deadline=deadline)
    with act("rejoin.copy"):
        pump(source.script(_BACKUP, source_dir, stdin=options.encode()), unpack, deadline, watch)
    told = output(ownership.script(target, _INFO, target_dir, deadline=deadline), deadline).decode(errors="replace")
    found = re.match(r"(\S+)\s+(\d+)", told)
    if found is None:
        raise ScriptFailed(f"the copy of {source.server} does not tell its position: {json.dumps(told[:100])}")
    return found[1], int(found[2])


def prepare(target: Host, target_dir: str, ownership: Ownership, deadline: Deadline) -> None:
    """Makes the copy one that a server can start with, and lays it beside the data that are there."""
    script = ownership.script(target, _PREPARE, target_dir, deadline=deadline)
    with act("rejoin.prepare_copy"):
        stream(script, lambda _: None, deadline)


def swap(target: Host, target_dir: str, ownership: Ownership, operation: str, deadline: Deadline) -> str:
    """Puts the copy in place, with the server stopped meanwhile; returns where the old data are.

    Nothing that is more urgent ends it midway: the server would stand still. For the same reason it is started with
    what it had when the copy cannot be put in place. Raises ScriptFailed, which then says so.
    """
    deadline = Deadline.firm(deadline.require("the server to be stopped"))
    old = old_folder(target_dir, operation)
    stop = ownership.script(target, SERVICE, target_dir, *target.stop, deadline=deadline)
    with act("rejoin.stop_server"):
        stream(stop, lambda _: None, deadline)
    rename = ownership.begun(target, _SWAP, target_dir, old)
    try:
        with act("rejoin.swap"):
            stream(rename, lambda _: None, deadline)
    except ScriptFailed as error:
        told = f"the copy could not be put in place on the host of {target.server} ({error})"
        try:
            start_server(target, target_dir, ownership, Deadline.firm(_START_AGAIN))
        except ScriptFailed as again:
            raise ScriptFailed(f"{told}, and the server could not be started with its old data: {again}") from error
        raise ScriptFailed(f"{told}; the server was started with its old data again") from error
    start_server(target, target_dir, ownership, deadline)
    return old


def discard(target: Host, target_dir: str, ownership: Ownership, operation: str, deadline: Deadline) -> None:
    """Removes the old data."""
    script = ownership.script(target, _DISCARD, target_dir, old_folder(target_dir, operation), deadline=deadline)
    with act("rejoin.discard"):
        stream(script, lambda _: None, deadline)


def old_folder(target_dir: str, operation: str) -> str:
    """Returns where the data that were there before ``operation`` are kept."""
    return f"{target_dir}.proxyroute-old-{operation}"
