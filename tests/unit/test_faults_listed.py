"""Every change to the outside world has a fault point, every fault point a change: the sweeps rely on it."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest

from proxyroute.faults import POINTS
from tests.unit.sources import FOLDER, Source, docstrings, sources

DRIVERS = ("db", "haproxy", "maxscale", "adapters", "lease", "hooks", "argv")
FAMILIES_OF_MODULES = ("agent", "notify")

PRIMITIVES: dict[tuple[str, str], str] = {
    ("db.session", "exchange"): "sends what it is given; change() gives it under act(), read() only reading",
    ("db.pipeline", "ask_for"): "sends reading statements, which read_all() of a session has looked at",
    ("argv", "run"): "scripts and hook adapters call it under script.run and hook.run, HAProxy's binary only looks",
    ("argv", "_end"): "ends what run started and whose time is over",
    ("haproxy.runtime", "_exchange"): "sends what it is given; tell() and reload() have an act(), ask() only reads",
    ("maxscale.rest", "_send"): "sends what it is given; all that changes anything has an act() around it",
    ("haproxy.files", "_staged"): "writes beside the file, for replace() and rehearse(), which have the act()",
    ("haproxy.share", "_exclusive"): "makes a folder appear, for stage() and claim(), which have the act()",
    ("haproxy.frames", "put"): "tells our own helper what to do, which has the act(), or tells us what came of it",
    ("adapters.publisher", "release"): "a folder of its own in which a configuration is tried out, gone afterwards",
    ("agent_addresses", "_own"): "asks the kernel which addresses there are",
    ("agent_memory", "_mute"): "a word in its own lock file, for whoever reads a status that cannot be written",
    ("agent_memory", "__init__"): "its own lock file and its folder, which mean nothing to a proxy",
    ("lease.etcd_client", "run"): "sends what it is given; what changes anything has an act() around it in lease.etcd",
    ("lease.local", "acquire"): "its own lock file and its folder, which mean nothing to a server or a proxy",
    ("lease.claims", "claim"): "the claim is the mkdir, under act(); an epoch without an owner's name was never used",
    ("lease.claims", "_forget_old"): "claims so old that nobody can meet them any more",
}
"""Functions that change something without an act() of their own, and who has one around them."""

FAMILIES = {point.partition(".")[0] for point in POINTS}
READS = re.compile(r"\s*(SELECT|SHOW|XA\s+RECOVER)\b", re.IGNORECASE)
CHANGING_SELECTS = re.compile(
    r"GET_LOCK|RELEASE_LOCK|RELEASE_ALL_LOCKS|INTO\s+(OUTFILE|DUMPFILE)|FOR\s+UPDATE|NEXTVAL|SETVAL", re.IGNORECASE
)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _called(call: ast.Call) -> str:
    """Returns the last name of what is called: ``change`` for ``self._open(d).change(…)``."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


@functools.cache
def _takers() -> dict[str, int]:
    """Functions that take a fault point, with its place among the arguments of a call."""
    takers = {"act": 0}
    for source in sources():
        for function in _functions(source.tree):
            names = [argument.arg for argument in function.args.args]
            if "point" in names:
                takers[function.name] = names.index("point") - (names[0] == "self")
    return takers


def _points_given(source: Source) -> Iterator[tuple[ast.Call, ast.expr]]:
    takers = _takers()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and _called(node) in takers:
            place = takers[_called(node)]
            given = [k.value for k in node.keywords if k.arg == "point"] or node.args[place : place + 1]
            for expression in given:
                yield node, expression


def unlisted(source: Source) -> list[str]:
    """Returns the calls whose fault point is not listed, or cannot be read from the source."""
    found = []
    for call, expression in _points_given(source):
        branches = [expression.body, expression.orelse] if isinstance(expression, ast.IfExp) else [expression]
        for branch in branches:
            if isinstance(branch, ast.Constant):
                if branch.value not in POINTS:
                    found.append(f"{source.at(call)}: {branch.value!r} is not in faults.POINTS")
            elif not (isinstance(branch, ast.Name) and branch.id == "point"):
                found.append(f"{source.at(call)}: the fault point is computed: {ast.unparse(branch)}")
    return found


def _literal(expression: ast.expr) -> str | None:
    """Returns the text an expression begins with, as far as it is written there."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    if isinstance(expression, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "?" for p in expression.values)
    if isinstance(expression, ast.BinOp):
        left, right = _literal(expression.left), _literal(expression.right)
        return left if left is None else left + (right or "")
    if isinstance(expression, ast.Call) and _called(expression) == "format":
        return _literal(expression.func.value) if isinstance(expression.func, ast.Attribute) else None
    return None


def changing_reads(source: Source) -> list[str]:
    """Returns the statements given to ``read`` or ``one`` that would change something."""
    constants = {
        target.id: node.value
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Call) and _called(node) in ("read", "one") and node.args):
            continue
        statement = node.args[0]
        if isinstance(statement, ast.Call) and isinstance(statement.func, ast.Attribute):
            statement = statement.func.value if statement.func.attr == "format" else statement
        if isinstance(statement, ast.Name):
            statement = constants.get(statement.id, statement)
        text = _literal(statement)
        if text is not None and (not READS.match(text) or CHANGING_SELECTS.search(text)):
            found.append(f"{source.at(node)}: not a mere reading: {text[:60]!r}")
    return found


_FILE_CHANGES = {"mkdir", "makedirs", "unlink", "rmdir", "rmtree", "symlink", "symlink_to", "truncate", "chmod"}
_FILE_WRITES = {"write_text", "write_bytes", "mkstemp", "NamedTemporaryFile"}
_SENDS = {"request", "send", "sendall", "sendto", "sendmsg", "execute", "executemany"}
_SENDS |= {"post", "send_message"}
_STARTS = {"Popen", "check_call", "check_output", "system", "execv", "fork", "kill", "killpg", "send_signal"}
_STARTS |= {"run_argv"}  # a primitive of ours: whoever calls it makes the change


def _changes(call: ast.Call) -> bool:
    """Whether a call changes something outside this process."""
    name = _called(call)
    if name in _FILE_CHANGES | _FILE_WRITES | _SENDS | _STARTS:
        return True
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in ("rename", "replace", "remove", "run"):
        # str.replace takes two texts, list.remove is not of os, and much else can be run
        return owner in ("os", "shutil", "subprocess") or (name == "rename" and bool(owner))
    if name == "open" and owner == "os":
        return "O_CREAT" in ast.unparse(call) or "O_WRONLY" in ast.unparse(call)
    if name == "open":
        mode = call.args[:1] if owner else call.args[1:2]
        mode += [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
        return any(isinstance(m, ast.Constant) and set(str(m.value)) & set("wax+") for m in mode)
    return False


def _has_act(statement: ast.With) -> bool:
    return any(
        isinstance(item.context_expr, ast.Call) and _called(item.context_expr) == "act" for item in statement.items
    )


def bare_changes(source: Source) -> dict[tuple[str, str], str]:
    """Returns, by module and function, a change that is made outside ``with act(…)``."""
    found: dict[tuple[str, str], str] = {}

    def visit(node: ast.AST, function: str, covered: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            function, covered = node.name, False
        if isinstance(node, ast.With) and _has_act(node):
            covered = True
        if isinstance(node, ast.Call) and not covered and _changes(node):
            found[source.module, function] = f"{source.at(node)}: {ast.unparse(node)[:80]}"
        for child in ast.iter_child_nodes(node):
            visit(child, function, covered)

    visit(source.tree, "", False)
    return found


PACKAGE = [source for source in sources() if source.module != "faults"]
DRIVER_MODULES = [
    source
    for source in PACKAGE
    if source.module.partition(".")[0] in DRIVERS or source.module.partition("_")[0] in FAMILIES_OF_MODULES
]


@pytest.mark.parametrize("source", PACKAGE, ids=lambda s: s.module)
def test_every_fault_point_used_is_listed(source: Source) -> None:
    assert unlisted(source) == []


def test_every_listed_fault_point_is_used() -> None:
    used = {
        node.value
        for source in PACKAGE
        for documentation in [docstrings(source.tree)]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation
    }
    assert set(POINTS) - used == set()


@pytest.mark.parametrize("source", PACKAGE, ids=lambda s: s.module)
def test_read_is_only_given_statements_that_read(source: Source) -> None:
    assert changing_reads(source) == []


@pytest.mark.parametrize("source", DRIVER_MODULES, ids=lambda s: s.module)
def test_drivers_change_the_outside_world_only_inside_an_act(source: Source) -> None:
    bare = bare_changes(source)
    assert {where: what for where, what in bare.items() if where not in PRIMITIVES} == {}


def test_every_exception_made_for_a_primitive_is_still_needed() -> None:
    bare = {where for source in DRIVER_MODULES for where in bare_changes(source)}
    assert set(PRIMITIVES) - bare == set()


def _module(code: str) -> Source:
    return Source("db.made_up", FOLDER / "db" / "made_up.py", ast.parse(code))


@pytest.mark.parametrize(
    "code",
    ["with act('mariadb.made_up'): pass", "s.change('nothing.known', 'SET x')", "s.change(name + 'x', 'SET x')"],
)
def test_an_unlisted_fault_point_is_found(code: str) -> None:
    assert unlisted(_module(code))


@pytest.mark.parametrize(
    "code",
    [
        "s.read('SET GLOBAL read_only=1', d)",
        "Q = 'KILL {}'\ns.read(Q.format(1), d)",
        "s.one(f'SELECT GET_LOCK({name!r}, 0)', d)",
        "s.read('INSERT INTO t ' + 'VALUES (1)', d)",
    ],
)
def test_a_changing_read_is_found(code: str) -> None:
    assert changing_reads(_module(code))


@pytest.mark.parametrize(
    "code",
    [
        "os.replace(a, b)",
        "def f(p):\n    p.rename(q)",
        "with act('haproxy.runtime'):\n    pass\ns.sendall(b'x')",
        "with act('haproxy.runtime'):\n    def later():\n        s.sendall(b'x')",
        "subprocess.run(['true'])",
        "open('x', 'w')",
        "p.open(mode='ab')",
        "os.open(p, os.O_RDWR | os.O_CREAT)",
        "path.write_text('x')",
    ],
)
def test_a_change_outside_an_act_is_found(code: str) -> None:
    assert bare_changes(_module(code))


@pytest.mark.parametrize(
    "code", ["with act('haproxy.runtime'):\n    s.sendall(b'x')", "'a'.replace('b', 'c')", "open('x')", "p.open()"]
)
def test_what_is_inside_an_act_or_changes_nothing_is_left_alone(code: str) -> None:
    assert not bare_changes(_module(code))
