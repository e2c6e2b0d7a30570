"""What the person asked the program to do: check, serve, scrape once."""
