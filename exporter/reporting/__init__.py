"""What is told of the program: its logs, and what they must not say."""
