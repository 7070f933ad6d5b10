from __future__ import annotations

import torch

# The machine has other tests to run, and tiny models gain nothing by more: beside others they lose seconds a call. Here
# and not in a fixture, for what is expected is computed when tests are collected, and sums depend on the threads.
torch.set_num_threads(1)
