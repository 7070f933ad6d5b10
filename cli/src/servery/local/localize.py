"""From a pod to processes, by exactly four substitutions; everything else runs as the pod says.

1. image -> command, by the runtime descriptors: a known image's program is the one of Servery that stands in for it.
2. mount path -> directory, in arguments and variables, since a process sees the machine's own file system.
3. bind host -> the pod's own loopback address, so that every pod has its port 8080 as in a cluster.
4. a Service's name -> its door on this machine, since nothing here resolves the names of a cluster.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest
from servery_sdk.model import Runtime

from servery.local.configuration import Configuration, environment, expand
from servery.local.doors import Doors, through

STORAGE_IMAGES = frozenset({"servery/storage-initializer", "kserve/storage-initializer"})
AGENT_IMAGES = frozenset({"servery/agent", "kserve/agent"})
RAY_IMAGE = "servery/ray"
_TEMPORARY = "/tmp"  # noqa: S108  # where containers expect it, not where we write
_PREFIX = re.compile(r"^(?:index\.)?docker\.io/")


class ErrImageNotLocal(ServeryError):
    """An image for which this machine has no program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A pod's own place on this machine.

    Attributes:
        address: Loopback address.
        directory: Of everything that belongs to the pod.
        claims: Directory of the persistent volume claims, one folder each.
    """

    address: str
    directory: Path
    claims: Path

    def volume(self, volume: Manifest) -> Path:
        """Return the directory of a pod's volume."""
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            return self.claims / str(volume["persistentVolumeClaim"]["claimName"])
        return self.directory / "volumes" / str(volume["name"])

    def log(self, container: str) -> Path:
        """Return the file of a container's output."""
        return self.directory / "logs" / f"{container}.log"

    def termination_log(self, container: str) -> Path:
        """Return the file in which a container may leave its last words."""
        return self.directory / "termination" / container


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What to start for one container; ``environment`` comes on top of the platform's own, ``directories`` by mount path."""

    container: Manifest
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directories: Mapping[str, Path] = field(default_factory=dict)

    def placed(self, text: str) -> str:
        """Return ``text`` with the container's mount paths replaced by this machine's directories."""
        return _placed(text, self.directories)


def localize(
    pod: Manifest,
    container: Manifest,
    sandbox: Sandbox,
    runtimes: Iterable[Runtime],
    given: Configuration,
    doors: Doors,
) -> Process:
    """Return the process that stands for one container of ``pod``, its variables filled from ``given``.

    Raises:
        ErrImageNotLocal: The image is not known here; says which are.
        CreateContainerConfigError: A variable names what is not there.
    """
    directories = dict(_directories(pod, container, sandbox))
    variables = environment(pod, container, sandbox.address, given)
    # The program is this machine's; only what the container was told speaks of the container's paths.
    known = tuple(runtimes)
    arguments = [*_program(container, known)]
    told = [through(expand(argument, variables), doors) for argument in _told(pod, container, known)]
    arguments += [_placed(argument, directories) for argument in told]
    placed = {name: _placed(through(value, doors), directories) for name, value in variables.items()}
    if _TEMPORARY in directories:
        placed["TMPDIR"] = str(directories[_TEMPORARY])
    termination_log = str(sandbox.termination_log(container["name"]))
    placed["SERVERY_PREDICTOR_TERMINATION_LOG"] = termination_log
    placed["SERVERY_STORAGE_TERMINATION_LOG"] = termination_log
    # The flag wins over the variable, so a host that the manifest names is replaced in place.
    for name in ("SERVERY_PREDICTOR_HOST", "SERVERY_AGENT_HOST", "SERVERY_AGENT_COMPONENT_HOST"):
        placed[name] = sandbox.address
    bound = tuple(argument.replace("0.0.0.0", sandbox.address) for argument in arguments)
    return Process(container=container, arguments=bound, environment=placed, directories=directories)


def repository(image: str) -> str:
    """Return an image's repository without registry default, tag and digest."""
    name = _PREFIX.sub("", image.partition("@")[0])
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def standing_in(image: str, runtimes: Iterable[Runtime]) -> Runtime | None:
    """Return the runtime that serves in the place of ``image``."""
    wanted = repository(image)
    for runtime in runtimes:
        # KServe's catalogue names its images by the runtime alone until its installer replaces them.
        if runtime.model_class and wanted in {*runtime.local_images, *runtime.aliases, repository(runtime.image)}:
            return runtime
    return None


def _program(container: Manifest, runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Return a known image's program; a ``command`` names one inside the image, so it is replaced together with it."""
    image = str(container.get("image", ""))
    if repository(image) in STORAGE_IMAGES and "servery-storage" in container.get("command", ()):
        return (sys.executable, "-c", "from servery_storage.commands import app; app()")
    if repository(image) in AGENT_IMAGES:
        return (sys.executable, "-m", "servery_agent.cli")
    if repository(image) in STORAGE_IMAGES:
        return (sys.executable, "-c", "from servery_storage.cli import main; main()")
    if repository(image) == RAY_IMAGE:
        if find_spec("ray") is None:
            raise ErrImageNotLocal(
                f"container {container['name']}: Ray is not installed on this machine: pip install 'servery[ray]'"
            )
        return (sys.executable, "-m", "servery.local.ray")
    runtime = standing_in(image, runtimes)
    if runtime is not None:
        program = (sys.executable, "-m", "servery_predictor.cli")
        given = any(str(argument).startswith("--runtime") for argument in container.get("args", ()))
        return program if given else (*program, f"--runtime={runtime.name}")
    known = sorted({name for runtime in runtimes if runtime.model_class for name in runtime.local_images})
    raise ErrImageNotLocal(
        f"container {container['name']}: image {image!r} has no program on this machine, which runs no containers; "
        f"known images: {', '.join(known)}; install a runtime plugin whose local_images name it, or use a cluster"
    )


def _told(pod: Manifest, container: Manifest, runtimes: tuple[Runtime, ...]) -> Iterator[str]:
    """Yield the arguments, in the words of the program that stands in for the image's own.

    Of the ``command`` only flags that have a counterpart are left: its other words speak of the image.
    """
    arguments = [str(argument) for argument in container.get("args", ())]
    image = str(container.get("image", ""))
    runtime = standing_in(image, runtimes)
    if repository(image) in AGENT_IMAGES:
        yield from _told_agent(arguments, pod, runtimes)
        return
    if runtime is None or repository(image) == repository(runtime.image):
        yield from arguments
        return
    command = [str(word) for word in container.get("command", ())]
    program = next((index for index, word in enumerate(command, 1) if word in runtime.local_programs), None)
    if program is not None:
        command, arguments = command[:program], command[program:] + arguments
    wanted: str | None = None
    words = (*command, *arguments)
    for index, word in enumerate(words):
        is_flag = word.startswith("-")
        if wanted is not None and not is_flag:
            # The value of the flag before it.
            yield from (word,) if wanted else ()
            wanted = None
            continue
        if index == len(command) and not is_flag and runtime.local_flags.get(word) == "":
            # The program's own name: images whose entry point runs its arguments have it in front of the flags.
            continue
        theirs, equals, value = word.lstrip("-").partition("=")
        ours = runtime.local_flags.get(theirs) if is_flag else None
        wanted = None if equals else ours
        if is_flag and (copy := runtime.local_copies.get(theirs)):
            yield f"--{copy}={value if equals else ' '.join(words[index + 1 : index + 2])}"
        if ours:
            yield f"--{ours}{equals}{value}"
        elif ours is None and index >= len(command):
            yield word


def _told_agent(arguments: list[str], pod: Manifest, runtimes: tuple[Runtime, ...]) -> Iterator[str]:
    """Yield an agent's arguments; a server that stands in for another tells its metrics where it answers."""
    flags = dict(pairwise(arguments))
    port = flags.get("--component-port")
    listening = [found for found in pod["spec"]["containers"] if port in _ports(found)]
    image = str((listening or pod["spec"]["containers"])[0].get("image", ""))
    runtime = standing_in(image, runtimes)
    told = {}
    if port is not None and runtime is not None and repository(image) != repository(runtime.image):
        told = {"--component-metrics-port": port, "--component-metrics-path": "/metrics"}
    before = ""
    for argument in arguments:
        yield told.get(before, argument)
        before = argument


def _ports(container: Manifest) -> list[str]:
    return [str(port["containerPort"]) for port in container.get("ports") or ()]


def _directories(pod: Manifest, container: Manifest, sandbox: Sandbox) -> Iterator[tuple[str, Path]]:
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        if mount["name"] in volumes:
            directory = sandbox.volume(volumes[mount["name"]])
            yield str(mount["mountPath"]), directory / mount.get("subPath", "")


def _placed(text: str, directories: Mapping[str, Path]) -> str:
    if not directories:
        return text
    # Only whole paths, neither /mnt/models2 nor the path of a URI; in one pass, since a directory may lie below a path.
    paths = "|".join(re.escape(path) for path in sorted(directories, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda match: str(directories[match[1]]), text)
