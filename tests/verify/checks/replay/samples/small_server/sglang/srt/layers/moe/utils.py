_EP_SIZE = 1


def initialize_moe_config(server_args):
    global _EP_SIZE
    _EP_SIZE = server_args.ep_size


def get_moe_ep_size():
    return _EP_SIZE
