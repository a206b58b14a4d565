"""Captions by a vision-language model: who is asked, what is stored, and in what order the work goes."""
