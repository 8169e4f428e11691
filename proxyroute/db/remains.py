"""What a server that does not answer has left on its host: the files of its binary log, and whether it runs.

One script looks, in a single call, because each is a login over ssh; then a file is a ``cat``. A process counts as the
server's when it works in its data folder, by device and inode, so that a container's view of the path does not matter.
Both flavours are looked at alike; only the program that reads a copied file differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from proxyroute.binlog import Remains
from proxyroute.db.log_text import decode_log
from proxyroute.errors import ScriptFailed
from proxyroute.faults import act
from proxyroute.host import Host, output, stream
from proxyroute.model import Deadline

_LOOK = r"""
set -e
asked() { my_print_defaults mysqld server mariadbd mariadb 2>/dev/null | sed -n "s/^--$1=//p" | tail -n 1; }
data=$1
[ -n "$data" ] || data=$(asked datadir)
cd "${data:-/var/lib/mysql}"
echo "folder	$(pwd -P)"
here=$(stat -Lc %d:%i .)
for status in /proc/[0-9]*/status; do
    name= state=
    while read -r key value; do
        case $key in Name:) name=$value ;; State:) state=$value; break ;; esac
    done 2>/dev/null <"$status" || :
    case $name in mariadbd*|mysqld*) ;; *) continue ;; esac
    case $state in Z*|X*|'') continue ;; esac
    process=${status%/status}
    at=$(stat -Lc %d:%i "$process/cwd" 2>/dev/null) || at=unknown
    [ "$at" = "$here" ] && echo "runs	process ${process#/proc/} ($state)"
    [ "$at" = unknown ] && echo "runs	process ${process#/proc/} ($state), whose data folder cannot be read"
    :
done
index=$2
if [ -z "$index" ]; then
    index=$(asked 'log[-_]bin[-_]index')
    base=$(asked 'log[-_]bin')
    [ -n "$index" ] || [ -z "$base" ] || index=${base%.*}.index
    case $index in ''|/*) ;; *) index=./$index ;; esac
    [ -n "$index" ] && [ -f "$index" ] || for index in *.index; do
        case $index in *relay*) ;; *) break ;; esac
    done
fi
case $index in *relay*) index= ;; esac
[ -n "$index" ] && [ -f "$index" ] || { echo "there is no index of a binary log in $(pwd -P)" >&2; exit 1; }
while IFS= read -r file; do
    [ -n "$file" ] || continue
    [ -r "$file" ] || { echo "$file cannot be read" >&2; exit 1; }
    case $file in /*) ;; *) file=$(pwd -P)/${file#./} ;; esac
    echo "log	$(($(wc -c <"$file")))	$file"
done <"$index"
"""


class HostRemains:
    """One server's host, as :class:`proxyroute.ports_data.DeadServer`."""

    reader: tuple[str, ...]
    """The program that reads a binary log, ``--no-defaults``, and what else it is told."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self._host = host
        self._files: dict[str, tuple[str, int]] = {}

    def look(self, deadline: Deadline) -> Remains:
        folder, running = "", list[str]()
        self._files = {}
        told = self._host.ask(_LOOK, self._host.data_dir, self._host.binlog_index, deadline=deadline)
        for line in told.splitlines():
            kind, _, value = line.partition("\t")
            if kind == "folder":
                folder = value
            elif kind == "runs":
                running.append(value)
            elif kind == "log":
                size, _, path = value.partition("\t")
                self._files[Path(path).name] = (path, int(size))
        if not self._files:
            raise ScriptFailed(f"the index of the binary log of {self.name} is empty")
        return Remains(folder, {name: size for name, (_, size) in self._files.items()}, tuple(running))

    def written_by(self, deadline: Deadline) -> int:
        """Returns the id of the server that wrote the last file, after a ``look``. Raises ScriptFailed."""
        path, _ = list(self._files.values())[-1]
        head = output(self._host.program("head", "-c", "19", path), deadline)
        if len(head) < 13 or not head.startswith(b"\xfebin"):
            raise ScriptFailed(f"{path} is encrypted, or no file of a binary log")
        return int.from_bytes(head[9:13], "little")

    def logs(self, deadline: Deadline) -> Mapping[str, int]:
        if not self._files:
            self.look(deadline)
        return {name: size for name, (_, size) in self._files.items()}

    def fetch_log(self, file: str, folder: Path, deadline: Deadline) -> Path:
        path, size = self._files[file]
        target = folder / file
        with act("archive.fetch"), target.open("wb") as copy:
            stream(self._host.program("cat", path), copy.write, deadline)
        if (got := target.stat().st_size) < size:
            raise ScriptFailed(f"only {got} of {size} bytes of {path} came from the host of {self.name}")
        return target

    def decode(self, file: Path, start: int, end: int, sink: Callable[[bytes], object], deadline: Deadline) -> None:
        decode_log(self.reader, file, start, end, sink, deadline)
