"""One of two ranks: each collective of the toy model right, and wrong in each way. Prints JSON."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

rank, meeting, parts = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
sys.path.insert(0, str(parts))
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)

from srt.models import toy  # noqa: E402

from verify.engines.inside.modules import Running  # noqa: E402
from verify.engines.sglang.serving.inside import corrupt  # noqa: E402

alone = [dist.new_group([each]) for each in range(2)][rank]
collectives = corrupt.Collectives(running=Running(), root=parts)
collectives.install()


def now():
    values = torch.tensor([1.0, 2.0]) * (1 + 9 * rank)
    return [each.tolist() for each in toy.collectives(values, torch.tensor([1]))]


silent = now()
collectives.active = True
said = {"right": now(), "silent": silent}
for site in sorted(collectives.seen):
    for how in (corrupt.DOUBLED, corrupt.DROPPED, corrupt.NAN, "over alone"):
        if how == "over alone" and site.function != "all_reduce":
            continue
        collectives.corrupt(site, how, alone)
        said[f"{site.function} {how}"] = [now(), collectives.struck]
collectives.corrupt(None)
said["again"] = now()
said["sites"] = [site.words() for site in sorted(collectives.seen)]
print(json.dumps(said))
