"""The ground floor: records, strict recipes, seeds, templates, run folders, progress. No torch, knows nobody."""
