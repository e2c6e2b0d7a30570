"""How the numbers are published."""
