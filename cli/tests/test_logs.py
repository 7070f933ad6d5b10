from __future__ import annotations

import json
import os
from pathlib import Path

from servery.state import LABELS, State


def test_logs_are_of_the_services_own_pods_whatever_their_names(tmp_path: Path) -> None:
    for age, (pod, service) in enumerate({"b-0": "iris", "iris-two-0": "iris-two", "a-0": "iris"}.items()):
        folder = tmp_path / "pods" / "default" / pod
        (folder / "logs").mkdir(parents=True)
        (folder / LABELS).write_text(json.dumps({"component": "predictor", "service": service}))
        log = folder / "logs" / "main.log"
        log.write_text(pod)
        os.utime(log, (age, age))
    assert [log.read_text() for log in State(tmp_path).logs("iris", "default")] == ["b-0", "a-0"]
