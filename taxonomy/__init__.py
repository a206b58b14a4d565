"""What to ask for: category trees, seeded draws of prompts, prompt sets in files."""
