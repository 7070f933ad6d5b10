"""torchvision's networks behind the default handlers, in archives as TorchServe's examples make them.

Weights are random: what an archive answers is compared with what the network itself says of the same picture.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protos.torchserve import inference_pb2 as pb
from torchvision import transforms

pytestmark = pytest.mark.timeout(300)

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"

CLASSIFIER = """
from torchvision.models.resnet import BasicBlock, ResNet


class ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2])
"""
SEGMENTER = """
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large


class ImageSegmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)

    def forward(self, pictures):
        return self.network(pictures)
"""
DETECTOR = """
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large


class ObjectDetector(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)

    def forward(self, pictures):
        return self.network(pictures)
"""


def picture() -> bytes:
    """A PNG of 300 by 280 pixels, some colour everywhere."""
    pixels = np.random.default_rng(7).integers(0, 256, (280, 300, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((300, 280)).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()


def prepared() -> Any:
    """The picture as networks of ImageNet want it, by torchvision itself."""
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    return transforms.Compose(steps)(Image.open(io.BytesIO(PICTURE)))[None]


def archive(folder: Path, handler: str, source: str, network: Any, labels: Any) -> None:
    """What ``torch-model-archiver --model-file --serialized-file --handler --extra-files`` makes."""
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    described = {"modelName": "m", "handler": handler, "modelFile": "model.py", "serializedFile": "weights.pth"}
    (folder / "model-store").mkdir()
    with zipfile.ZipFile(folder / "model-store" / "m.mar", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": described}))
        packed.writestr("model.py", source)
        packed.writestr("weights.pth", weights.getvalue())
        packed.writestr("index_to_name.json", json.dumps(labels))


async def asked(folder: Path) -> Any:
    """The archive's answer to the picture, the same by ``curl -T`` and by gRPC."""
    settings = Settings(runtime="torch", model_name="m", model_dir=folder, host="127.0.0.1", http_port=0, grpc_port=0)
    predictor = Predictor(settings, plugins.load().runtimes["servery-torch"], Metrics(CollectorRegistry()))
    await predictor.start()
    try:
        assert predictor.grpc is not None
        async with httpx.AsyncClient(base_url=predictor.http.url, timeout=120) as http:
            answer = await http.put("/predictions/m", content=PICTURE)
        assert answer.status_code == 200, answer.text
        async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
            call = channel.unary_unary(
                f"{SERVICE}/Predictions",
                request_serializer=pb.PredictionsRequest.SerializeToString,
                response_deserializer=pb.PredictionResponse.FromString,
            )
            said = await call(pb.PredictionsRequest(model_name="m", input={"data": PICTURE}))
        assert json.loads(said.prediction) == answer.json()
        return answer.json()
    finally:
        await predictor.stop()


async def test_resnet18_says_its_five_most_probable_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    labels = {str(at): [f"n{at:08}", f"thing {at}"] for at in range(1000)}
    archive(tmp_path, "image_classifier", CLASSIFIER, network, labels)
    with torch.inference_mode():
        chances, classes = torch.softmax(network(prepared()), dim=1)[0].topk(5)
    wanted = {f"thing {at}": chance for at, chance in zip(classes.tolist(), chances.tolist(), strict=True)}
    assert await asked(tmp_path) == pytest.approx(wanted, rel=1e-4)


async def test_a_segmenter_says_the_class_of_each_pixel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(SEGMENTER, namespace)
    network = namespace["ImageSegmenter"]().eval()
    archive(tmp_path, "image_segmenter", SEGMENTER, network, {})
    with torch.inference_mode():
        chances, classes = torch.softmax(network(prepared())["out"], dim=1)[0].max(dim=0)
    found = np.array(await asked(tmp_path))
    assert found.shape == (224, 224, 2)
    np.testing.assert_allclose(found[..., 1], chances.numpy(), rtol=1e-4)
    assert (found[..., 0] == classes.numpy()).mean() > 0.999


async def test_a_detector_says_what_is_where(tmp_path: Path) -> None:
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    exec(DETECTOR, namespace)
    network = namespace["ObjectDetector"]().eval()
    with torch.no_grad():
        # Sure of the second class wherever it looks: random weights are sure of nothing.
        for level in network.network.head.classification_head.module_list:
            bias = level[1].bias.view(-1, 5)
            bias.copy_(torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0]))
    archive(tmp_path, "object_detector", DETECTOR, network, {"2": "cat"})
    with torch.inference_mode():
        (wanted,) = network([transforms.ToTensor()(Image.open(io.BytesIO(PICTURE)))])
    sure = wanted["scores"] > 0.5
    found = await asked(tmp_path)
    assert len(found) == int(sure.sum()) > 0
    assert all("cat" in one for one in found)
    np.testing.assert_allclose([one["cat"] for one in found], wanted["boxes"][sure].numpy(), rtol=1e-3, atol=0.01)
