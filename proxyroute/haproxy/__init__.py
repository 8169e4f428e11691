"""HAProxy on this host: its files, its runtime socket, its processes. Knows nothing of the engine."""
