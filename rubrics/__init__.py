"""What good means: rubric files, rendered into the criteria of a prompt, and the templates judges are asked with."""
