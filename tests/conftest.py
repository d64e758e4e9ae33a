from __future__ import annotations

import torch

torch.set_num_threads(1)  # so that timings and bits do not depend on what else the machine does
