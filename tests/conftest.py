"""One thread: these tensors are so small that a second one costs more than it gives."""

import torch

torch.set_num_threads(1)
