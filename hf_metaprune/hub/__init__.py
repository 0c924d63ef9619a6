"""The Hugging Face Hub: its client, its errors, and writing to it."""
