"""A real model behind llama.cpp's own HTTP server, as a process: `python -m gateway.demo.model_server --model FILE`.

Prints one JSON line with its address once it answers, logs to stderr, and ends with its parent (see leash).
One process stands behind all regions of the demo: it runs `slots` answers at once and queues the others.
"""

import argparse
import json
import signal
import sys

from gateway.leash import leave_with_parent

MODEL_NAME = "SmolLM2-135M-Instruct"  # the backend's own name of the model; the server answers to any
SLOTS = 6
SLOT_TOKENS = 2048  # context of one slot; 47 MB each when full


def command(model: str, *, slots: int = SLOTS, threads: int = 1) -> list[str]:
    """The command line that starts this server."""
    module = "gateway.demo.model_server"
    return [sys.executable, "-m", module, "--model", model, "--slots", str(slots), "--threads", str(threads)]


def serve(model: str, slots: int, threads: int, host: str, port: int) -> None:
    leave_with_parent()
    import xllamacpp  # an extra: only this process needs it

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL_NAME}
    params.use_jinja = True  # the model's own chat template
    params.n_parallel = slots
    params.n_ctx = slots * SLOT_TOKENS
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0  # prompts of ended answers are not kept beside the slots
    params.warmup = False  # the first answer warms up as well, half a second sooner
    params.ui = False
    params.hostnames = [host]
    params.port = port
    server = xllamacpp.Server(params)
    print(json.dumps({"address": server.listening_address, "model": MODEL_NAME}), flush=True)
    while True:
        signal.pause()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Serve a GGUF file as an OpenAI-compatible backend.")
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--slots", type=int, default=SLOTS)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0, help="0: a free one")
    given = arguments.parse_args()
    serve(given.model, given.slots, given.threads, given.host, given.port)


if __name__ == "__main__":
    main()
