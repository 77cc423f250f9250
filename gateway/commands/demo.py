"""`tokenport demo`: four regions, one edge and a real model, on this machine."""

from argparse import Namespace


def run(arguments: Namespace) -> int:
    # Imported here: the demo needs an extra, the other commands must not.
    from gateway.demo import run as run_demo

    return run_demo(arguments)
