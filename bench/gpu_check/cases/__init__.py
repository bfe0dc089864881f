"""The cases of each step: ``run(case, device, options)`` returns the fields of its row."""
