"""What verification is worth, and what it costs the answers that are right: `run.py` is all of it.

- `accuracy` asks a model the same stories in six ways, through a real server (`asking`), and judges the verifier's flags
  by what the stories say (`truth`).
- `planted` draws violations and clean look-alikes for each verifier (`plants/`) and reads them as the server does.
- `speed` compares answers with and without verification on an upstream at 20 ms a token.
"""
