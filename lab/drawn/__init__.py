"""Drawn talking heads in many styles: flat, outlined or shaded; people, animals, robots. Nothing is downloaded: all is drawn here."""
