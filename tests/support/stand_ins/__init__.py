"""Services that models come from, on this machine, for the tests of several packages."""
