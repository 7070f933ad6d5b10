"""The committed stubs are those of ``protos/``, and live beside other people's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_stubs_match_the_protos() -> None:
    subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py"), "--check"], check=True)


def test_stubs_share_a_process_with_those_of_kserve() -> None:
    program = (
        "import kserve.protocol.grpc.grpc_predict_v2_pb2 as theirs\n"
        "from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as ours\n"
        "sent = ours.ModelInferRequest(model_name='m', raw_input_contents=[b'x'])\n"
        "assert theirs.ModelInferRequest.FromString(sent.SerializeToString()).model_name == 'm'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
