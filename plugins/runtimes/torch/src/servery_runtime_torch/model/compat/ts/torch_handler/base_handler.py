"""The handler that others extend: loads weights, then preprocess, inference, postprocess."""

from __future__ import annotations

import abc
import importlib
import logging
from pathlib import Path
from typing import Any

import torch

from ..context import Context
from ..utils.util import list_classes_from_module, load_label_mapping

logger = logging.getLogger(__name__)


class BaseHandler(abc.ABC):  # noqa: B024  # TorchServe's own is abstract in name only; handlers inherit from it so
    """Serves TorchScript, a program of ``torch.export``, or a module's class with its state dict."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Context | None = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.model_yaml_config: dict[str, Any] = {}

    def initialize(self, context: Context) -> None:
        """Load the model and its labels.

        Raises:
            RuntimeError: The archive has no weights, or no model file that it names.
            ValueError: The model file has not exactly one class.
        """
        properties = context.system_properties
        self.manifest = context.manifest
        self.model_yaml_config = getattr(context, "model_yaml_config", {})
        gpu = properties.get("gpu_id")
        self.map_location = "cuda" if gpu is not None and torch.cuda.is_available() else "cpu"
        self.device = torch.device(f"cuda:{gpu}" if self.map_location == "cuda" else "cpu")
        folder, said = Path(str(properties["model_dir"])), self.manifest["model"]
        self.model_pt_path = str(folder / said["serializedFile"]) if said.get("serializedFile") else None
        if said.get("modelFile"):
            self.model = self._load_pickled_model(str(folder), said["modelFile"], self.model_pt_path)
            self.model.to(self.device).eval()
        elif self.model_pt_path is None:
            raise RuntimeError("No model weights could be loaded: the archive has neither serializedFile nor modelFile")
        elif self.model_pt_path.endswith(".pt2"):
            self.model = torch.export.load(self.model_pt_path).module()
        else:
            self.model = self._load_torchscript_model(self.model_pt_path)
            self.model.eval()
        self._compile()
        self.mapping = load_label_mapping(str(folder / "index_to_name.json"))
        self.initialized = True

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        jit: Any = torch.jit
        return jit.load(model_pt_path, map_location=self.device)

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        if not (Path(model_dir) / model_file).is_file():
            raise RuntimeError(f"Missing the model file {model_file}")
        module = importlib.import_module(Path(model_file).stem)
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            names = ", ".join(found.__name__ for found in classes) or "none"
            raise ValueError(f"Expected only one class as model definition in {model_file}, found: {names}")
        model = classes[0]()
        if model_pt_path:
            # weights_only, torch's default since 2.6: a state dict needs no code.
            model.load_state_dict(torch.load(model_pt_path, map_location=self.device, weights_only=True))
        return model

    def _compile(self) -> None:
        said = self.model_yaml_config.get("pt2", {})
        options = {"backend": said} if isinstance(said, str) else dict(said.get("compile", {}))
        if options.pop("enable", bool(options)):
            self.model = torch.compile(self.model, **options)

    def preprocess(self, data: Any) -> Any:
        """Return the items as a tensor ``[rows, *item]``."""
        return torch.as_tensor(data, device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's answer."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> Any:
        """Return an answer for each item."""
        return data.tolist()

    def handle(self, data: Any, context: Context) -> Any:
        """Return an answer, or an explanation, for each item of ``data``."""
        self.context = context
        if self._is_describe():
            return [self.describe_handle()]
        prepared = self.preprocess(data)
        if self._is_explain():
            return self.explain_handle(prepared, data)
        return self.postprocess(self.inference(prepared))

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """Return ``get_insights`` of the items, for the first one's ``target`` (0 without)."""
        inputs, target = None, 0
        if isinstance(raw_data[0], dict):
            inputs = raw_data[0].get("data") or raw_data[0].get("body")
            target = raw_data[0].get("target") or 0
        return self.get_insights(data_preprocess, inputs, target)

    def get_insights(self, tensor_data: Any, _: Any, target: int = 0) -> Any:
        """Return attributions ``[rows, *item]``; handlers with something to explain override it."""
        raise NotImplementedError(f"{type(self).__name__} has no get_insights")

    def describe_handle(self) -> Any:  # noqa: B027  # handlers may override it
        """Return what the model says of itself."""

    def get_device(self) -> Any:
        """Return where the model is."""
        return self.device

    def _is_explain(self) -> bool:
        self.explain = self._asks("explain")
        return self.explain

    def _is_describe(self) -> bool:
        return self._asks("describe")

    def _asks(self, header: str) -> bool:
        return self.context is not None and self.context.get_request_header(0, header) == "True"
