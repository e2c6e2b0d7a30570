"""What the file says, and what is wrong with it."""
