"""The report of one operation told to people, from the values that ``history.report_from`` makes. Pure.

It says who moved to whom, who asked for it, each step with its duration, the verdict with its evidence, what clients
may have seen and what is left to do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from proxyroute.words import other_line, seconds, step_line

Report = Mapping[str, Any]
_PROVEN, _NOT_PROVEN = "PROVEN", "NOT PROVEN"


def headline(told: Report) -> str:
    """Returns the report in one line, without the cluster's name."""
    who = f"{told['old_primary']} → {told['new_primary']}" if told["kind"] != "rejoin" else told["new_primary"]
    moved = f"{told['kind']} {who}"
    verdict = f"{told['verdict']}, " if told["verdict"] and told["outcome"] == "done" else ""
    left = f"; {len(told['left_to_do'])} left to do" if told["left_to_do"] else ""
    state = "unfinished: " if told["outcome"] == "unfinished" else ""
    text = str(told["text"]).removeprefix(f"{told['kind']} ")
    return f"{moved}: {state}{verdict}{text}{left}"


def level(told: Report) -> str:
    """Returns how good that is: ``good``, ``warn`` or ``bad``."""
    if told["outcome"] == "unfinished" or told["verdict"] == _NOT_PROVEN:
        return "bad"
    proven = told["outcome"] == "done" and told["verdict"] == _PROVEN
    return "good" if proven and not told["left_to_do"] else "warn"


def text(told: Report) -> str:
    """Returns the report for people to read."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Report) -> Iterator[str]:
    yield f"{told['cluster']}: {headline(told)}"
    yield ""
    force = ", with --force" if told["force"] else ""
    place = f" on {told['host']}" if told["host"] else ""
    yield f"Asked for by  {told['by'] or 'somebody'}{place}{force}"
    if told["reason"]:
        yield f"Because       {told['reason']}"
    if told["resumed_by"]:
        yield f"Taken up by   {', then '.join(told['resumed_by'])}"
    begun = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(told["started"]))
    yield f"Begun         {begun}, took {seconds(told['seconds'])}"
    yield f"Clients       {told['clients']}"
    yield ""
    yield "Steps"
    for record in told["story"]:
        line = step_line(record) if record["kind"] == "stepped" else other_line(record)
        if line:
            yield line
    if told["verdict"]:
        yield ""
        yield f"Proof: {told['verdict']}"
        for evidence in told["evidence"]:
            yield f"  {evidence['verdict']:<10}  {evidence['subject']}: {evidence['claim']}: {evidence['seen']}"
    if told["left_to_do"]:
        yield ""
        yield "Left to do; proxyroute heal takes it up"
        yield from (f"  {left}" for left in told["left_to_do"])
    if told["outcome"] == "unfinished":
        yield ""
        yield "It is not finished: type 'proxyroute heal'"
    yield ""
    yield f"The whole story: proxyroute show {told['operation']}"
