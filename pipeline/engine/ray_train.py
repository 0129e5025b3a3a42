"""Ranks of a training as processes of Ray Train."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.engine.nodes import WorkerCheck, hash_package
from vlmill.pipeline.engine.ray_cluster import open_cluster


def run_distributed(
    function: Callable[[], object], ranks: int, address: str | None, *, gpus: bool, patience: timedelta
) -> None:
    """Run a function in `ranks` processes that are one group of torch.distributed, through Ray Train.

    Each has a GPU, or a CPU, and waits up to `patience` for the others (Ray's own default is half an hour). What they
    print is not shown: Ray Train's own lines would bury it. Raises the first error of a rank, or RecipeError where this
    machine has fewer GPUs.
    """
    import ray  # noqa: PLC0415
    from ray.train import RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415

    check = WorkerCheck(hash_package())
    with (
        open_cluster(ranks, address, {}, gpus=gpus),
        tempfile.TemporaryDirectory(prefix="vlmill-ray-") as scratch,
    ):
        here = int(ray.cluster_resources().get("GPU", 0))
        if gpus and address is None and here < ranks:  # Ray would wait for more
            way = f"--ranks {here}" if here else "--device cpu"
            raise RecipeError(f"--ranks {ranks}: each takes a GPU, and this machine has {here}; take {way}")

        def work() -> None:
            check()
            function()

        trainer = TorchTrainer(
            work,
            scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpus),
            torch_config=_name_interfaces(TorchConfig)(
                "nccl" if gpus else "gloo", timeout_s=int(patience.total_seconds())
            ),
            run_config=RunConfig(storage_path=scratch),
        )
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as error:
            raise next(iter(error.worker_failures.values()), error) from error
        except ray.train.TrainingFailedError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise StoreError(
                f"the {ranks} ranks could not meet ({said[-1] if said else type(error).__name__}). They have to reach "
                f"each other at any port of the nodes' addresses in Ray; where a node has several networks, start Ray "
                "there with GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME set to the interface of that one, such as eth0"
            ) from error


INTERFACES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}
"""Environment variables that name the interface through which ranks talk, and how (NCCL takes `=` for a whole name)."""

ADDRESS_OF = 0x8915
"""SIOCGIFADDR of Linux: the IPv4 address of an interface."""


def _name_interfaces(config: Any) -> Any:
    """The class of Ray Train's `config` whose ranks name their interfaces before they meet.

    Without, gloo takes what the node's host name resolves to: often loopback, or nothing.
    """
    backend = config().backend_cls

    class NamingBackend(backend):  # type: ignore[misc, valid-type]  # Ray's
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(name_interface)
            super().on_start(worker_group, backend_config)

    class NamingConfig(config):  # type: ignore[misc]
        @property
        def backend_cls(self) -> Any:
            return NamingBackend

    return NamingConfig


def name_interface() -> None:
    """Name the interface of this node's address in Ray for gloo and NCCL, unless its environment names one."""
    import ray  # noqa: PLC0415

    if name := find_interface(ray.util.get_node_ip_address()):
        for variable, form in INTERFACES.items():
            os.environ.setdefault(variable, form.format(name))


def find_interface(address: str) -> str:
    """The interface of this machine that has an IPv4 address; empty where none has it."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            try:
                answer = fcntl.ioctl(asked, ADDRESS_OF, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
