"""The local platform: the real controller on an API server in memory, and pods that are processes."""
