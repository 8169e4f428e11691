"""What may be asked for, as the description of the API has it: one shape for each kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxyroute.web.tokens import Scope

_NAME = Field(min_length=1, max_length=100)
Name = Annotated[str, _NAME]
TableName = Annotated[str, Field(max_length=200, pattern=r"^[^.]+\..+$", examples=["shop.orders"])]
Primary = Annotated[
    Name | None, Field(description="The primary that this is about; refused when it is another one by then.")
]
Seconds = Annotated[
    float | None, Field(gt=0, le=366 * 86400, description="It ends by itself after this time; without it never.")
]


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field("", max_length=1000, description="Why; it stands in the audit and in the journal.")

    @property
    def scope(self) -> Scope:
        """What is needed to ask for this."""
        return Scope.OPERATE

    @property
    def arguments(self) -> dict[str, Any]:
        """As ``Command`` takes them: what was not given is left out."""
        return self.model_dump(exclude={"kind", "reason"}, exclude_none=True, exclude_defaults=True)


class Switchover(_Order):
    """Move the primary to another server."""

    kind: Literal["switchover"]
    target: Name | None = Field(None, description="The server that takes over; else one is elected.", examples=["db2"])
    primary: Primary = None
    force: bool = Field(False, description="Pass over findings that may be passed over.")
    kill_long: bool = Field(False, description="End transactions that do not end in time.")


class Failover(_Order):
    """Put another server in the place of a primary that is gone."""

    kind: Literal["failover"]
    target: Name | None = Field(None, description="The server that takes over; else one is elected.")
    primary: Primary = None
    force: bool = Field(False, description="Pass over findings that may be passed over, a loss among them.")
    fenced_by: str = Field("", max_length=200, description="Who has made sure that the old primary takes no writes.")
    fenced_proxies: list[Name] = Field(default_factory=list, max_length=100, description="Proxies that are surely off.")
    apply_dead_binlog: bool = Field(False, description="Apply what only the old primary has, read from its host.")


class Heal(_Order):
    """Finish or undo what was left open."""

    kind: Literal["heal"]
    declare_lost: list[Name] = Field(
        default_factory=list, max_length=100, description="Servers that are gone for good. Needs the scope admin."
    )

    @property
    def scope(self) -> Scope:
        return Scope.ADMIN if self.declare_lost else Scope.OPERATE


class Rejoin(_Order):
    """Make a server follow the primary again."""

    kind: Literal["rejoin"]
    server: Name
    method: Name | None = Field(None, description="As `proxyroute rejoin --method`; without it nothing may be lost.")


class Publish(_Order):
    """Make every proxy follow the server that is the primary now."""

    kind: Literal["publish"]


class Acknowledge(_Order):
    """Say that every failover so far has been seen: none limits the next one."""

    kind: Literal["acknowledge"]


class Maintenance(_Order):
    """Put a server into maintenance, or end that: it gets no reads, is no candidate, and is left alone."""

    kind: Literal["maintenance"]
    server: Name
    on: bool = True
    seconds: Seconds = None

    @property
    def arguments(self) -> dict[str, Any]:
        return super().arguments | {"on": self.on}


class Pause(_Order):
    """Let the daemon do nothing by itself: no failover, no rejoin, no correction of proxies."""

    kind: Literal["pause"]
    seconds: Seconds = None


class Resume(_Order):
    """Let the daemon act by itself again."""

    kind: Literal["resume"]


class Rank(_Order):
    """Say whether a server is to become primary first, or never."""

    kind: Literal["rank"]
    server: Name
    rank: Literal["prefer", "never", "neither", ""] = Field("", description="Empty: as the configuration says.")
    seconds: Seconds = None


class ResetOrders(_Order):
    """Drop all standing orders, also when they cannot be read; the file is kept."""

    kind: Literal["reset_orders"]


class Verify(_Order):
    """Compare the data of replicas with the primary; what moves the primary goes on beside it."""

    kind: Literal["verify"]
    server: Name | None = Field(None, description="This replica only; else all, one after the other.")
    tables: list[TableName] = Field(default_factory=list, max_length=1000, description="These only; else all.")
    seconds: Seconds = Field(None, description="Give up after this time; by default after a day.")


Order = Annotated[
    Switchover
    | Failover
    | Heal
    | Rejoin
    | Publish
    | Acknowledge
    | Maintenance
    | Pause
    | Resume
    | Rank
    | ResetOrders
    | Verify,
    Field(discriminator="kind"),
]
