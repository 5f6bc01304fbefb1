"""Where the keys' states are kept."""
