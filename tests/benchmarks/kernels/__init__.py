"""What the kernels and the local engine gain, each beside what it must beat, in one run.

- `sharing`: a block run twice in a row against two blocks, on this CPU, with torch alone.
- `engine_speed`: the engine against transformers' `generate` on the same weights.
- `lookup_speed`: n-gram lookup against plain decoding, with the same output.
- `predictions`: the roofline for GPUs that are not here; predicted, not measured.

Each has `run(rounds) -> Figures`; `run` puts them together. `gpu` is for a machine with a GPU.
"""
