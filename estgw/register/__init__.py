"""What a CA has issued."""
