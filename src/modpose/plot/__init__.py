"""Drawing: styles, grids of pictures, scatters, pages."""
