"""What a scrape learned, under one deadline."""
