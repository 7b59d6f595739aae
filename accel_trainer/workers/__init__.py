"""What is launched as a process of its own."""
