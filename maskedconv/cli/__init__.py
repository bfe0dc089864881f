"""What the commands share: options, progress and listings."""
