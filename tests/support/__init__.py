"""Real servers, load and verdicts for the tests, the demo and the bench."""
