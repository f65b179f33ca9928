"""A --patch for vLLM 0.32.0: later stages of Gemma 4 take the layers' inputs they are handed."""

from vllm.model_executor.models import gemma4

forward = gemma4.Gemma4Model.forward


def take(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None, **named):
    if intermediate_tensors is not None:
        named["per_layer_inputs"] = intermediate_tensors.tensors.get("per_layer_inputs")
    return forward(self, input_ids, positions, intermediate_tensors, inputs_embeds, **named)


gemma4.Gemma4Model.forward = take
