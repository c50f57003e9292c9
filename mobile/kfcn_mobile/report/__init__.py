"""The report of a validation: text, page and pictures."""
