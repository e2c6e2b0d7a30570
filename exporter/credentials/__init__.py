"""Who we are to the cloud."""
