"""What sampling costs beyond the upstream's time."""
