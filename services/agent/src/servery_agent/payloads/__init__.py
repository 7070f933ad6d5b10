"""The payload log: what passes by is copied to a spool on disk, and a process of its own sends it on from there."""
