"""One thread for torch: with more, on few cores, it fights JAX's own."""

import torch

torch.set_num_threads(1)
