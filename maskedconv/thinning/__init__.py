"""Networks without the channels that no output depends on."""
