"""Several processes that serve one port: a supervisor, which forks, watches and relays, and its workers."""
