"""ProxyRoute moves the primary of a MariaDB or MySQL replication cluster and makes the traffic follow."""

__version__ = "0.1.0"
