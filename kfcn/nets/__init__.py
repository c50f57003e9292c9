"""The networks, and the backbones that they stand on."""
