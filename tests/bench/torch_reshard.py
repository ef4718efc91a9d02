#!/usr/bin/env python3
"""Reshard safetensors shard folders with torch.distributed.checkpoint; print the seconds.

    python3 torch_reshard.py RANKS DST FOLDER...

RANKS processes on this machine (gloo), each with its share of the cores. Each FOLDER is
loaded as DTensors that are cut along dimension 0 over all ranks, as FSDP2 cuts them, and
saved again as one shard file a rank. The time runs from a barrier before the first load
to a barrier after the last save; imports and the start of the processes do not count.
"""
import contextlib
import logging
import os
import sys
import tempfile
import time
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, zeros

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def reshard(src, dst, mesh):
    state = {}
    for name, stored in HuggingFaceStorageReader(src).read_metadata().state_dict_metadata.items():
        state[name] = zeros(*stored.size, dtype=stored.properties.dtype, device_mesh=mesh,
                            placements=[Shard(0)])
    dcp.load(state, storage_reader=HuggingFaceStorageReader(src))
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(dst, save_distributed=True))


def rank_main(rank, ranks, rendezvous, dst, folders):
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank,
                            world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    dist.barrier()
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        for number, folder in enumerate(folders):
            reshard(folder, os.path.join(dst, str(number)), mesh)
    dist.barrier()
    if rank == 0:
        print(time.perf_counter() - began, flush=True)
    dist.destroy_process_group()


def main():
    ranks, dst, folders = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (ranks, os.path.join(folder, "rendezvous"), dst, folders), ranks)


if __name__ == "__main__":
    main()
