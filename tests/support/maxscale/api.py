"""The REST API of a double, without the sockets: a request in, an answer out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from proxyroute.model import Address
from tests.support.maxscale.answers import Answer, Request, conditional, shaped
from tests.support.maxscale.auth import Auth
from tests.support.maxscale.commands import Commands
from tests.support.maxscale.documents import Documents
from tests.support.maxscale.machine import Machine, RefusedError
from tests.support.maxscale.versions import at_least

_KINDS = {"servers": "server", "monitors": "monitor", "services": "service"}
_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


class Api:
    """Answers requests to one MaxScale, one at a time."""

    def __init__(self, machine: Machine, auth: Auth) -> None:
        self._m = machine
        self._auth = auth
        self._commands = Commands(machine)

    def answer(self, request: Request) -> tuple[Answer, bytes]:
        """Returns the answer and its body as it goes over the wire."""
        if request.method not in _METHODS:
            return Answer(405), b""
        override = request.headers.get("X-HTTP-Method-Override")
        if override:
            request.method = override
        path = [part for part in request.path.split("/") if part]
        if path[:1] == ["v1"]:
            path = path[1:]
        if request.method == "GET" and path == ["auth"]:
            answer = self._auth.login(request)
            return answer, answer.text(pretty=True)
        refusal = self._auth.refusal(request)
        if refusal is not None:
            return refusal, refusal.text(pretty=True)
        if request.method == "HEAD":
            answer = Answer(200, headers={"Content-Type": "application/json"}, tagged=True)
            return conditional(request, answer, b"", self._m.started), b""
        if request.method == "OPTIONS":
            return Answer(200, headers={"Accept": "GET, DELETE"}), b""
        with self._m.main():
            answer = self._handled(request, path)
        return self._finished(request, answer)

    def _handled(self, request: Request, path: list[str]) -> Answer:
        try:
            body = _parsed(request.body)
            if self._m.sync is not None:
                self._m.sync.take_over(self._m)
            if request.method == "GET":
                return self._get(request, path)
            return self._changed(request, path, body)
        except RefusedError as error:
            return self._refused(request, path, error)

    def _finished(self, request: Request, answer: Answer) -> tuple[Answer, bytes]:
        answer.tagged = request.method == "GET" and not any(
            h.lower() in ("if-none-match", "if-modified-since") for h in request.headers
        )
        answer.tagged &= "filter" not in request.query or answer.status == 200
        pretty = request.options.get("pretty") != "false"
        if answer.body is not None and answer.typed:
            answer.headers.setdefault("Content-Type", "application/json")
        content = answer.text(pretty=pretty)
        answer = conditional(request, answer, content, self._m.started)
        return answer, content if answer.status not in (204, 304, 412) else b""

    def _refused(self, request: Request, path: list[str], error: RefusedError) -> Answer:
        body: dict[str, Any] = {}
        details = [{"detail": text} for text in error.details]
        if details and error.top:
            body["errors"] = details
        if details and error.meta:
            body["links"] = {"self": Documents(self._m, request.base).link(*path)}
            body["meta"] = {"errors": details}
        return Answer(error.status, body or None, typed=not str(error).startswith("Invalid JSON"))

    def _object(self, kind: str, name: str) -> Any:
        """Returns an object. Raises RefusedError: 404, with a body since 23.08."""
        found = getattr(self._m, kind).get(name)
        if found is None:
            text = (f"{name} is not a {_KINDS[kind]}",) if at_least(self._m.version, 23, 8) else ()
            raise RefusedError(404, *text)
        return found

    # -- reading --

    def _get(self, request: Request, path: list[str]) -> Answer:
        documents = Documents(self._m, request.base)
        if not path:
            return Answer(200)
        data: Any
        match path:
            case ["servers" | "monitors" | "services" as kind]:
                make = getattr(documents, _KINDS[kind])
                data = [make(found) for found in getattr(self._m, kind).values()]
            case ["servers" | "monitors" | "services" as kind, name]:
                data = getattr(documents, _KINDS[kind])(self._object(kind, name))
            case ["servers" | "monitors" | "services" as kind, name, "relationships", other]:
                made = getattr(documents, _KINDS[kind])(self._object(kind, name))
                relation = made["relationships"].get(other) or documents.relation(other, [], *path[:2])
                return Answer(200, relation)
            case ["listeners"]:
                data = [
                    documents.listener(service) for service in sorted(self._m.services.values(), key=lambda s: s.name)
                ]
            case ["sessions"]:
                data = self.sessions(documents)
            case ["maxscale"]:
                data = documents.maxscale()
            case ["users", "inet"]:
                data = [documents.user(name) for name in self._m.users]
            case ["users", "inet", name] if name in self._m.users:
                data = documents.user(name)
            case ["users", "inet", name]:
                raise RefusedError(404, f"{name} is not a user")
            case ["maxscale", "modules", "mariadbmon"]:
                data = documents.module()
            case ["maxscale", "modules", "mariadbmon", name]:
                return self._command(request, path, name)
            case ["maxscale", "modules", name]:
                raise RefusedError(404, f"{name} is not a module")
            case _:
                return Answer(404)
        # a module says it is where all modules are
        where = path[:2] if path[1:2] == ["modules"] else path
        document = {"data": data, "links": {"self": documents.link(*where)}}
        return Answer(200, shaped(document, request, at_least(self._m.version, 24, 2)))

    sessions: Callable[[Documents], list[dict[str, Any]]] = staticmethod(lambda documents: [])
    """Who is connected; the data plane puts its own in place."""

    def _command(self, request: Request, path: list[str], name: str) -> Answer:
        said = self._commands.call(request.method, name, request.words)
        if said is None:
            return Answer(204)
        meta: Any = said if isinstance(said, str) else {"errors": [{"detail": text} for text in said]}
        return Answer(200, {"links": {"self": Documents(self._m, request.base).link(*path)}, "meta": meta})

    # -- changing --

    def _changed(self, request: Request, path: list[str], body: Any) -> Answer:
        match request.method, path:
            case "PUT", ["servers", name, "set" | "clear" as verb]:
                self._object("servers", name)
                force = request.options.get("force") == "yes"
                self._m.change(name, verb, request.options.get("state", ""), force=force)
            case "PUT", ["monitors", name, "start" | "stop" as verb]:
                self._m.set_running(self._object("monitors", name), verb == "start")
            case (("POST" | "PUT"), ["maxscale", "modules", "mariadbmon", name]):
                return self._command(request, path, name)
            case "PATCH", ["maxscale"]:
                self._patch(self._m.parameters, _data(body), "maxscale")
            case "PATCH", ["servers" | "monitors" | "services" as kind, name]:
                return self._patch_object(kind, name, body)
            case "PATCH", ["monitors", name, "relationships", "servers"]:
                monitor = self._object("monitors", name)
                monitor.servers = self._named(body)
            case "PATCH", ["services", name, "relationships", "servers"]:
                self._service_servers(name, body)
            case "POST", ["servers"]:
                with self._m.changed_objects():
                    self._add_server(_data(body))
            case "POST", ["services"]:
                self._add_service(_data(body))
            case "POST", ["listeners"]:
                self._add_listener(_data(body))
            case "DELETE", ["services", name]:
                self._object("services", name)
                del self._m.services[name]
            case "DELETE", ["listeners", name]:
                self.unlisten(name)
            case "POST", ["users", "inet"]:
                new = _data(body)
                self._m.users[new["id"]] = (new["attributes"]["password"], new["attributes"].get("account", "admin"))
            case "DELETE", ["users", "inet", name] if name in self._m.users:
                del self._m.users[name]
            case "DELETE", ["servers", name]:
                with self._m.changed_objects():
                    self._delete_server(name)
            case _:
                return Answer(404)
        return Answer(204)

    def _patch_object(self, kind: str, name: str, body: Any) -> Answer:
        found = self._object(kind, name)
        self._patch(found.parameters, _data(body), kind)
        answer = Answer(204)
        if kind == "servers":
            found.persisted = bool(self._m.parameters["load_persisted_configs"])
            changes = _data(body).get("attributes", {}).get("parameters")
            if found.persisted and not found.runtime and changes:
                file = f"/var/lib/maxscale/maxscale.cnf.d/{name}.cnf"
                answer.headers["Mxs-Warning"] = (
                    f"Saving runtime modifications to '{name}' in '{file}'. The modified values will override the "
                    "values found in the static configuration files."
                )
        return answer

    def _patch(self, parameters: dict[str, Any], data: dict[str, Any], kind: str) -> None:
        """Only the named parameters; ``state`` is ignored."""
        changes = data.get("attributes", {}).get("parameters", {})
        for name, value in changes.items():
            if name not in parameters:
                raise RefusedError(400, f"{kind}: The parameter '{name}' is unrecognized.")
            wanted = parameters[name]
            if isinstance(wanted, int) and not isinstance(wanted, bool) and not isinstance(value, int):
                raise RefusedError(400, f"{name}: Expected a json integer, but got a json {_json_type(value)}.")
        parameters.update(changes)

    def _named(self, body: Any) -> list[str]:
        names = [item["id"] for item in body["data"]]
        for name in names:
            if name not in self._m.servers:
                raise RefusedError(400, f"'{name}' is not a valid object of type 'servers'")
        return names

    def _service_servers(self, name: str, body: Any) -> None:
        service = self._object("services", name)
        names = self._named(body)
        if service.cluster:
            raise RefusedError(
                400,
                f"The servers of the service '{name}' are defined by the monitor '{service.cluster}'. Servers cannot "
                "explicitly be added to the service.",
                f"Could not find all servers that '{name}' relates to",
            )
        service.servers = names

    def _add_server(self, data: dict[str, Any]) -> None:
        name, parameters = data["id"], dict(data["attributes"]["parameters"])
        if name in self._m.servers:
            raise RefusedError(400, f"Can't create server '{name}', a server with that name already exists")
        address = Address(parameters.pop("address"), parameters.pop("port", 3306))
        server = self._m.add_server(name, address, runtime=True)
        try:
            self._patch(server.parameters, {"attributes": {"parameters": parameters}}, "servers")
        except RefusedError:
            del self._m.servers[name]
            raise

    # Services made at run time are not among the recordings; the bench needs them, and nothing relies on the answers.

    def _add_service(self, data: dict[str, Any]) -> None:
        service = self._m.add_service(data["id"], data["attributes"]["router"], 0, **data["attributes"]["parameters"])
        service.servers = self._named(data["relationships"]["servers"])

    def _add_listener(self, data: dict[str, Any]) -> None:
        (owner,) = data["relationships"]["services"]["data"]
        self._m.services[owner["id"]].port = data["attributes"]["parameters"]["port"]
        self.listen(data["id"], self._m.services[owner["id"]].port)

    listen: Callable[[str, int], None] = staticmethod(lambda name, port: None)
    unlisten: Callable[[str], None] = staticmethod(lambda name: None)
    """The data plane puts its own in place."""

    def _delete_server(self, name: str) -> None:
        self._object("servers", name)
        users = [m.name for m in self._m.monitors.values() if name in m.servers]
        users += [s.name for s in self._m.services.values() if name in s.servers]
        if users:
            raise RefusedError(400, f"Cannot destroy server '{name}' as it is used by: {', '.join(users)}")
        del self._m.servers[name]


def _parsed(body: bytes | None) -> Any:
    """Any body must be JSON, even where it is ignored."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        near = re.search(r"[{\s]*(\w+)", body.decode(errors="replace"))
        text = f"string or '}}' expected near '{near[1] if near else ''}'"
        raise RefusedError(400, f"Invalid JSON in request: {text}") from None


def _data(body: Any) -> dict[str, Any]:
    if body is None:
        raise RefusedError(400, "Missing request body")
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
        raise RefusedError(400, "No '/data' field defined")
    found: dict[str, Any] = body["data"]
    return found


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "real", str: "string", list: "array", dict: "object"}
    return kinds[type(value)]
