"""MaxScale over its REST API: how it is reached, what its states mean, what would keep it from following."""
