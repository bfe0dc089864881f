"""The cases of each step: ``run(case, device, options)`` gives what its row holds."""
