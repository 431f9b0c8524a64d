"""What Ray is told by every test, those included that give a process an environment of its own."""

BUSY = {
    # Its agents may take a minute to start.
    "RAY_agent_register_timeout_ms": "120000",
    # Its workers have as much of the machine as others; nicer ones, Ray's default, wait for all of them.
    "RAY_worker_niceness": "0",
}
