"""llama.cpp's HTTP server as a program: prints its address, serves until standard input ends.

Runs by path in the environment that has `xllamacpp`, so it imports nothing of Predawn.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--alias", required=True, help="the id in /v1/models")
    parser.add_argument("--slots", type=int, default=2, help="answers written at the same time")
    parser.add_argument("--context", type=int, default=2048, help="tokens per slot")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chat-template", type=Path, help="a Jinja template in place of the model's own")
    parser.add_argument("--embeddings", action="store_true")
    return parser.parse_args()


def parameters(options: argparse.Namespace, library: Any) -> Any:
    """The server's settings; port 0 lets the system choose one that is free."""
    params = library.CommonParams()
    params.model.path = options.weights
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.cache_ram_mib = 64  # the default of 8 GiB is not for a demo
    params.use_jinja = True
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    if options.chat_template:
        params.chat_template = options.chat_template.read_text(encoding="utf-8")
    if options.embeddings:
        params.embedding = True
        params.pooling_type = library.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def main() -> None:
    options = arguments()
    library = importlib.import_module("xllamacpp")
    server = library.Server(parameters(options, library))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # an orderly end waits for answers that nobody reads any more


if __name__ == "__main__":
    main()
