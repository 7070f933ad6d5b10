"""Models of one node, held for those who asked for them: what the daemon keeps."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from servery_sdk.errors import ErrorCode, Permanent, ServeryError
from servery_sdk.storage import StorageEntry

from servery_storage.engine import Engine
from servery_storage.patterns import Patterns
from servery_storage.progress import Progress

_NOTES = ".servery-models"


class StoreFull(ServeryError):
    """The quota has no room for the model, and all that is there is held."""

    code = ErrorCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model of the store.

    Attributes:
        name: Its folder's, relative to the root.
        used_at: Seconds since the epoch, when it was last asked for or released.
    """

    name: str
    uri: str
    size_bytes: int
    is_held: bool
    used_at: float


class Store:
    """A directory of models, each below its name.

    Args:
        quota_bytes: Of all models together; 0 is no bound. Released models make room, the longest unused first.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, root: Path, engine: Engine, *, quota_bytes: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.root, self.quota_bytes = root, quota_bytes
        self._engine, self._clock = engine, clock
        self._notes = root / _NOTES
        self._notes.mkdir(parents=True, exist_ok=True)
        self._fetching: dict[str, asyncio.Lock] = {}
        self._coming: dict[str, int] = {}
        self._models = {model.name: model for model in self._read()}

    def models(self) -> Sequence[StoredModel]:
        """Return what is there, by name."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def used_bytes(self) -> int:
        """Of what is there, and of what is coming."""
        return sum(model.size_bytes for model in self._models.values()) + sum(self._coming.values())

    async def fetch(self, name: str, uri: str, progress: Progress, patterns: Patterns) -> Path:
        """Bring the model at ``uri`` and hold it; return its folder.

        Raises:
            FetchFailed: It could not be brought.
            StoreFull: There is no room.
            Permanent: The name is none of a folder below the root.
        """
        target = self._folder(name)
        async with self._fetching.setdefault(name, asyncio.Lock()):
            with self._room(name) as made:
                await self._engine.fetch(uri, target, _Roomed(progress, made), patterns)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            self._keep(StoredModel(name=name, uri=uri, size_bytes=size, is_held=True, used_at=self._clock()))
        return target

    def release(self, name: str, *, remove: bool) -> None:
        """Let a model go, when its room is needed or at once.

        Raises:
            ServeryError: There is none of this name.
        """
        model = self._models.get(name)
        if model is None:
            raise ServeryError(f"{name}: no such model in the store", code=ErrorCode.NOT_FOUND)
        if remove:
            self._remove(model)
        else:
            self._keep(replace(model, is_held=False, used_at=self._clock()))

    def _folder(self, name: str) -> Path:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or any(part.startswith(".") for part in path.parts) or "\0" in name:
            raise Permanent(f"{name!r}: a model's name is a folder's, such as iris or team-a/iris")
        inner = [known for known in self._models if known != name and _is_within(path, PurePosixPath(known))]
        if inner:
            raise Permanent(f"{name!r}: the folder would be within that of {inner[0]!r}, or around it")
        return self.root / path

    @contextmanager
    def _room(self, name: str) -> Iterator[Callable[[int], None]]:
        def made(size_bytes: int) -> None:
            self._coming[name] = 0
            free = sorted(
                (model for model in self._models.values() if not model.is_held), key=lambda model: model.used_at
            )
            # What the model leaves behind of an earlier version, it replaces.
            earlier = self._models[name].size_bytes if name in self._models else 0
            needed = size_bytes - earlier
            for model in free:
                if not self.quota_bytes or self.used_bytes + needed <= self.quota_bytes:
                    break
                if model.name != name:
                    self._remove(model)
            if self.quota_bytes and self.used_bytes + needed > self.quota_bytes:
                raise StoreFull(
                    f"{name}: needs {size_bytes} bytes, and {self.used_bytes} of the store's {self.quota_bytes} are "
                    "held; release a model, or raise the quota"
                )
            self._coming[name] = max(0, needed)

        try:
            yield made
        finally:
            self._coming.pop(name, None)

    def _keep(self, model: StoredModel) -> None:
        self._models[model.name] = model
        new = self._note(model.name).with_suffix(".new")
        new.write_text(json.dumps(asdict(model)))
        new.rename(self._note(model.name))

    def _remove(self, model: StoredModel) -> None:
        self._models.pop(model.name)
        self._note(model.name).unlink(missing_ok=True)
        folder = self.root / model.name
        shutil.rmtree(folder, ignore_errors=True)

    def _note(self, name: str) -> Path:
        return self._notes / f"{name.replace('/', '%')}.json"

    def _read(self) -> Iterator[StoredModel]:
        for note in self._notes.glob("*.json"):
            model = StoredModel(**json.loads(note.read_text()))
            if (self.root / model.name).is_dir():
                yield model
            else:
                note.unlink()


class _Roomed:
    """Makes room when it is known how much is needed, and passes all on."""

    def __init__(self, progress: Progress, made: Callable[[int], None]) -> None:
        self._made = made
        self._progress = progress
        self.waits, self.advance, self.has, self.end = progress.waits, progress.advance, progress.has, progress.end
        self.tries_again, self.comes_again = progress.tries_again, progress.comes_again

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        self._made(sum(entry.size_bytes or 0 for entry in entries))
        self._progress.begin(source, entries)


def _is_within(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
