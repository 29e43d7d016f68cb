"""How kf-tiny is made. Nothing imports it, and it is left out of the packed node."""
