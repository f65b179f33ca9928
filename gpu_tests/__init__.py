"""Real mixture-of-experts layers on real ranks: `python -m gpu_tests`.

gloo on CPU processes by default, NCCL on GPUs, torchrun for many hosts.
"""
