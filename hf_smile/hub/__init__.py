"""What is published on the Hugging Face Hub."""
