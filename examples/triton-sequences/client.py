"""Two sequences by turns, with Triton's own client: ``python client.py HOST:PORT``, of REST."""

from __future__ import annotations

import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput


def main(address: str) -> None:
    """Print the totals of two sequences."""
    numbers = {"7": [1, 2, 3], "8": [10, 20, 30]}
    totals: dict[str, int] = {}
    with InferenceServerClient(address) as client:
        for step in range(3):
            for sequence, given in numbers.items():
                tensor = InferInput("IN", [1, 1], "INT32")
                tensor.set_data_from_numpy(np.array([[given[step]]], np.int32))
                answer = client.infer(
                    "running_total",
                    [tensor],
                    sequence_id=int(sequence),
                    sequence_start=step == 0,
                    sequence_end=step == 2,
                )
                totals[sequence] = int(answer.as_numpy("OUT")[0, 0])
    print(*(f"{sequence}: {total}" for sequence, total in totals.items()))


if __name__ == "__main__":
    main(sys.argv[1])
