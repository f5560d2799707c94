"""What is loaded, and where."""
