"""A --patch for vLLM 0.32.0: a pipeline stage of Granite's hybrid runs the layers that it has."""

from torch.nn import ModuleList
from vllm.model_executor.models import granitemoehybrid

model = granitemoehybrid.GraniteMoeHybridModel
forward = model.forward


def run(self, *positional, **named):
    every = self.layers
    self.layers = ModuleList(list(every)[self.start_layer : self.end_layer])
    try:
        return forward(self, *positional, **named)
    finally:
        self.layers = every


model.forward = run
