"""How a client gets an answer."""
