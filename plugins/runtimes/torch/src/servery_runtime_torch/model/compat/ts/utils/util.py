"""Labels, module lookups and exceptions."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class PredictionException(Exception):
    """What a handler raises to say a status; 4xx is the caller's fault."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message, self.error_code = message, error_code

    def __str__(self) -> str:
        """Return the message and the code."""
        return f"{self.message} : {self.error_code}"


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that ``module`` itself defines, by name, of ``parent_class`` where one is given."""
    own = [found for _, found in inspect.getmembers(module, inspect.isclass) if found.__module__ == module.__name__]
    return own if parent_class is None else [found for found in own if issubclass(found, parent_class)]


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return the labels by class number, None where there is no such file.

    Raises:
        ValueError: The file holds something else.
    """
    file = Path(mapping_file_path)
    if not file.is_file():
        return None
    mapping = json.loads(file.read_text())
    if isinstance(mapping, dict) and isinstance(mapping.get("object_type_names"), list):
        return {str(number): str(label) for number, label in enumerate(mapping["object_type_names"])}
    if not isinstance(mapping, dict):
        raise ValueError(f'{file.name}: must be an object of labels by class number, such as {{"0": "cat"}}')
    labels = {number: label[-1] if isinstance(label, list) else label for number, label in mapping.items()}
    if not all(isinstance(label, str) for label in labels.values()):
        raise ValueError(f"{file.name}: labels must be texts, or lists that end in one")
    return labels


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: Mapping[str, str] | None = None,
    lbl_classes: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, float]]:
    """Return for each row its probabilities by label, or by class number where there are no labels."""
    classes: Sequence[Sequence[int]] = lbl_classes or [range(len(row)) for row in probs]
    return [
        {(mapping[str(number)] if mapping else str(number)): value for number, value in zip(numbers, row, strict=True)}
        for numbers, row in zip(classes, probs, strict=True)
    ]


def get_yaml_config(yaml_file_path: str) -> Any:
    """Return what a YAML file holds."""
    import yaml

    return yaml.safe_load(Path(yaml_file_path).read_text())
