"""What is known of an instance's restores, and when to ask again?"""
