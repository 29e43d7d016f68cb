"""A file of weights becomes networks and a card."""
