"""What `proxyroute serve` offers over HTTP: pages for people, an API for programs, metrics and health for machines."""
