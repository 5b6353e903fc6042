"""What spending by difficulty is worth, and that the mean is kept. `price.py` needs no model."""
