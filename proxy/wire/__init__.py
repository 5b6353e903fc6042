"""The wire, without input or output: events, bodies, errors and headers as values."""
