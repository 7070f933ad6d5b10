"""Which of the server's words reach its log, changed while it runs.

Source: Triton's logging extension; its src/http_server.cc for the names of settings and the words of errors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json

from servery_predictor.extensions.ledger import Ledger

_DEFAULTS: Mapping[str, Json] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
_SWITCHES = {"log_info": logging.INFO, "log_warning": logging.WARNING, "log_error": logging.ERROR}
_FIXED = {
    "log_file": "log file location can not be updated through network protocol",
    "log_format": "log_format: logs are JSON lines, and stay so",
}


class WrongLogSetting(ServeryError):
    """A setting has a value that it cannot have."""

    code = ErrorCode.INVALID_ARGUMENT


class FixedLogSetting(ServeryError):
    """A setting that is not a client's to change."""

    code = ErrorCode.UNIMPLEMENTED


class LogSettings(logging.Filter):
    """The settings, and the filter that obeys them; use it as a context around the life of the server."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._silent: frozenset[int] = frozenset()
        self._before: int | None = None
        self._handlers: tuple[logging.Handler, ...] = ()

    def install(self) -> None:
        """Listen to every handler that the process has."""
        self._handlers = tuple(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(self)
        self.refresh()

    def remove(self) -> None:
        """Leave logs as they were."""
        for handler in self._handlers:
            handler.removeFilter(self)
        self._verbose(0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        return min(record.levelno, logging.ERROR) not in self._silent

    def settings(self) -> Mapping[str, Json]:
        """Return all of them."""
        return {**_DEFAULTS, **self._ledger.read().get("log", {})}

    def change(self, changes: Mapping[str, Json]) -> None:
        """Change some; None leaves one as it is.

        Raises:
            WrongLogSetting: A value cannot be.
            FixedLogSetting: It is not a client's to change.
        """
        checked = {name: _checked(name, value) for name, value in changes.items() if value is not None}
        with self._ledger.change() as document:
            document.setdefault("log", {}).update(checked)
        self.refresh()

    def refresh(self) -> None:
        """Obey what another worker was told."""
        found = self.settings()
        self._silent = frozenset(level for name, level in _SWITCHES.items() if not found[name])
        self._verbose(int(str(found["log_verbose_level"])))

    def _verbose(self, level: int) -> None:
        root = logging.getLogger()
        if level and self._before is None:
            self._before = root.level
            root.setLevel(logging.DEBUG)
        elif not level and self._before is not None:
            root.setLevel(self._before)
            self._before = None


def _checked(name: str, value: Json) -> Json:
    if name in _FIXED:
        if value == _DEFAULTS[name] and name == "log_format":
            return value
        raise FixedLogSetting(_FIXED[name])
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise WrongLogSetting(f"expect boolean for '{name}'")
    elif name == "log_verbose_level":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise WrongLogSetting(f"expect unsigned integer for '{name}'")
    else:
        raise WrongLogSetting(f"unknown log setting {name!r}; there are: {', '.join(sorted(_DEFAULTS))}")
    return value
