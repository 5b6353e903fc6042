"""Benchmarks: each compares things measured in one run on one machine, and leaves its evidence behind.

- `evidence` is what a run leaves: figures, bars that hold or do not, and everything needed to run it again.
- `processes` starts programs pinned to a core and reads what they really cost: CPU time and memory of the whole tree.
- `native` compiles the C programs that must be cheaper than what they measure.
- `proxy/` is what Predawn costs a request, beside other gateways. `soak/` is what becomes of it after ten minutes of trouble.
- `kernels/` is what sharing blocks gains on a CPU, and the local engine beside transformers. `tiny/` is what the bundled
  model can do.
- `sleep/` is what thinking beforehand is worth, and that nothing is lost or paid twice when it is killed.
- `verify/` is what reading along is worth, what it catches, and what it costs answers that are right.

Absolute rates on a shared machine swing by a factor of two; ratios of CPU time within one run stay within a fifth. Bars are
therefore ratios wherever a peer exists.
"""
