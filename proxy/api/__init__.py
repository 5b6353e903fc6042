"""The HTTP surface: one thin module per group of endpoints. Each parses, calls, and relays."""
