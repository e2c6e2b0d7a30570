"""What is known of one instance's backups, and what to ask next."""
