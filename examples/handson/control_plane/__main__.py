# SPDX-License-Identifier: Apache-2.0
"""python -m examples.handson.control_plane --config DIR --run DIR [--rotate SECONDS]

SIGUSR1: new certificates for all pods, now."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from .plane import HALF_A_DAY, ControlPlane, say


def arguments():
    parser = argparse.ArgumentParser(prog="python -m examples.handson.control_plane", description=(
        "A control plane for the pods of one machine: serves what Kubernetes and Istio YAML says, as istiod would."))
    parser.add_argument("--config", required=True, type=Path, help="folder of YAML files; changes are followed")
    parser.add_argument("--run", required=True, type=Path, help="run directory: pods/NAME/pod.json, sockets, status")
    parser.add_argument("--rotate", type=float, default=HALF_A_DAY, metavar="SECONDS",
                        help="between two certificates of a pod (default: half a day)")
    parser.add_argument("--plain", action="store_true",
                        help="leave Istio's own filters out, for an Envoy that does not have them")
    said = parser.parse_args()
    if not said.config.is_dir():
        parser.error(f"--config {said.config} is no folder")
    if said.rotate <= 0:
        parser.error("--rotate wants more than 0 seconds")
    return said


async def serve(said):
    said.run.mkdir(parents=True, exist_ok=True)
    control = ControlPlane(said.config, said.run, said.rotate, said.plain)
    plane = asyncio.create_task(control.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, control.rotate_now)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, plane.cancel)
    try:
        await plane
    except asyncio.CancelledError:
        say("ends")


if __name__ == "__main__":
    try:
        asyncio.run(serve(arguments()))
    except RuntimeError as error:
        sys.exit(f"control plane: {error}")
