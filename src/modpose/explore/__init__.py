"""The local page that shows a run: its scatter, pictures, filters and selections."""
