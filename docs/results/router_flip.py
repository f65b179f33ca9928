"""What one flipped expert of one token moves: python router_flip.py (torch and transformers, CPU).

A tiny GLM-4-MoE (the configuration, random weights and prompts of an early run on four GPUs) in
bfloat16: for the last of four tokens of each prompt and each router, the margin of the second
expert over the third, how far bfloat16 moves the router's scores, and how far the log-probabilities
go when the third takes the second's place.
"""

import sys

import torch
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

PROMPTS = [[5, 17, 33, 101], [11, 12, 13, 140], [99, 8, 81, 23]]
SIZES = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "use_qk_norm": True,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
write = sys.stdout.write
scores = {}
flipped = None

torch.manual_seed(0)
config = Glm4MoeConfig(**SIZES)
config.dtype = "float32"
model = Glm4MoeForCausalLM(config).float().eval()
routers = {i: layer.mlp.gate for i, layer in enumerate(model.model.layers) if i}
with torch.no_grad():
    biases = [(name, buffer) for name, buffer in model.named_buffers() if "bias" in name]
    for name, weight in [*model.named_parameters(), *biases]:
        noise = torch.randn_like(weight)
        of_norm = "norm" in name and weight.dim() == 1
        weight.copy_(1 + 0.1 * noise if of_norm else (0.08 if weight.dim() > 1 else 0.05) * noise)


def watch(layer):
    """A hook that notes a router's last token, and flips its expert where `flipped` says so."""

    def hook(gate, _, out):
        logits, weights, experts = out
        every = logits.float().sigmoid()
        scores[layer] = every[-1]
        best = (every + gate.e_score_correction_bias.float()).topk(3, -1)
        scores[layer, "margin"] = float(best.values[-1, 1] - best.values[-1, 2])
        if flipped == layer:
            taken = best.indices[-1, [0, 2]]
            share = every[-1, taken]
            weights[-1] = share / share.sum() * gate.routed_scaling_factor
            experts[-1] = taken
        return logits, weights, experts

    return hook


@torch.no_grad()
def answer(tokens):
    """Log-probabilities of what follows, [vocabulary], in nats."""
    return model(torch.tensor([tokens])).logits[0, -1].float().log_softmax(-1)


for layer, gate in routers.items():
    gate.register_forward_hook(watch(layer))
exact = [(answer(tokens), dict(scores)) for tokens in PROMPTS]
model.to(torch.bfloat16)
for gate in routers.values():
    gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()
for tokens, (whole, before) in zip(PROMPTS, exact, strict=True):
    flipped = None
    rounded, now = answer(tokens), dict(scores)
    write(f"bfloat16 alone: {(rounded - whole).abs().max():.3f} nats\n")
    for layer in routers:
        flipped = layer
        moved = (answer(tokens) - rounded).abs().max()
        error = (now[layer] - before[layer]).abs().max()
        margin = before[layer, "margin"]
        said = f"margin {margin:.4f}, scores off by {error:.4f}, flip {moved:.2f} nats"
        write(f"layer {layer}: {said}\n")
