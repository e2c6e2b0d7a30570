"""What can be asked of the cloud, and what its answers say."""
