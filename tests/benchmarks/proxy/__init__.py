"""What Predawn costs a request, beside other gateways in the same run.

- `mock_upstream.c` answers faster than any gateway; `load.c` asks and checks; both are pinned to core 1, gateways to core 0.
- `peers` are the gateways; `predawn_peers` are Predawn in the three dresses that the bars speak of; `installs` fetches what is
  missing into `.cache/bench/`, and says so when it cannot be had.
- `workloads` are the tests, `measure` runs one of them on one peer, `fidelity` compares bodies byte for byte.
- `bars` turns samples into promises, `picture` into a figure; `run` is the command.

All peers stay resident; within a test they take turns in a shuffled order, round after round, so that whatever else the
machine does hits all of them. Ratios are taken per round, and their median is what counts.
"""
