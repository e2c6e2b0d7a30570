"""How one request gets there and back, within the limits."""
