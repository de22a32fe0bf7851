"""What is known of targets."""
