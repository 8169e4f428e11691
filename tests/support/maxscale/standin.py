"""A MaxScale for containers that is none: the double, with the configuration file and the command line of one.

Stands for the public image where that cannot be had, in tests only: as ``maxscale`` it reads a configuration file and
becomes the double, as ``maxctrl`` it does the four commands that our scripts need. Users are kept; states are lost with
the process, as MaxScale loses them. Sessions are carried as a readconnroute does, for any account: a readwritesplit
would have to know the passwords.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import json
import signal
import sys
import urllib.error
from pathlib import Path
from typing import Any

from proxyroute.model import Address
from tests.support.maxscale.backends import MadeUp
from tests.support.maxscale.bits import Bit
from tests.support.maxscale.double import Double, Tls
from tests.support.maxscale.real import ask
from tests.support.maxscale.router import Router

USERS = Path("/var/lib/maxscale/passwd")
EVERYWHERE = "0.0.0.0"


def maxscale(argv: list[str]) -> int:
    """Becomes a MaxScale in the foreground, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="maxscale")
    for flag in ("--nodaemon", "--user", "--log"):
        parser.add_argument(flag, nargs="?")
    parser.add_argument("--config", type=Path, required=True)
    config = configparser.ConfigParser()
    config.read_string(parser.parse_args(argv).config.read_text())
    own = config["maxscale"]
    tls = Tls(Path(own["admin_ssl_cert"]), Path(own["admin_ssl_key"])) if "admin_ssl_cert" in own else None
    double = Double({}, MadeUp(), monitor=False, services=False, tls=tls)
    double.host, double.port = own["admin_host"], int(own["admin_port"])
    sections = [config[name] for name in config.sections() if name != "maxscale"]
    for section in sections:
        if section["type"] == "server":
            double.machine.add_server(section.name, Address(section["address"], int(section["port"])))
    ports = {s["service"]: int(s["port"]) for s in sections if s["type"] == "listener"}
    kept = {"type", "router", "servers", "user", "password"}
    routers = []
    for section in sections:
        if section["type"] == "service":
            given = {key: _value(text) for key, text in section.items() if key not in kept}
            double.machine.add_service(section.name, section["router"], ports[section.name], **given)
            place = Address(EVERYWHERE, ports[section.name])
            role = Bit.MASTER if section["router"] == "readwritesplit" else Bit.SLAVE
            routers.append(Router(double, place, role))
    with contextlib.suppress(FileNotFoundError):
        double.machine.users = {name: (word, kind) for name, (word, kind) in json.loads(USERS.read_text()).items()}
    double.start()
    for router in routers:
        router.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    USERS.write_text(json.dumps(double.machine.users))
    return 0


def _value(text: str) -> Any:
    return {"true": True, "false": False}.get(text, text)


def maxctrl(argv: list[str]) -> int:
    """Does what our scripts ask of ``maxctrl``; returns its exit status."""
    parser = argparse.ArgumentParser(prog="maxctrl")
    for option in ("--timeout", "--user", "--password", "--tls-ca-cert", "--type"):
        parser.add_argument(option, default="")
    for flag in ("--secure", "--tsv"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("words", nargs="+")
    given = parser.parse_args(argv)
    url = f"{'https' if given.secure else 'http'}://{given.user}:{given.password}@127.0.0.1:8989"
    try:
        match given.words:
            case ["list", "users"]:
                print(*(item["id"] for item in ask(url, "GET", "users/inet")["data"]), sep="\n")
            case ["list", "servers"]:
                for item in ask(url, "GET", "servers")["data"]:
                    at = item["attributes"]["parameters"]
                    print(item["id"], at["address"], at["port"], 0, item["attributes"]["state"], sep="\t")
            case ["create", "user", name, password]:
                attributes = {"password": password, "account": given.type}
                ask(url, "POST", "users/inet", {"data": {"id": name, "type": "inet", "attributes": attributes}})
            case ["destroy", "user", name]:
                ask(url, "DELETE", f"users/inet/{name}")
            case _:
                sys.exit(f"maxctrl: not known here: {' '.join(given.words)}")
    except (urllib.error.URLError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # waited for
    sys.exit({"maxscale": maxscale, "maxctrl": maxctrl}[sys.argv[1]](sys.argv[2:]))
