"""Networks without the channels that are the same for every image."""
