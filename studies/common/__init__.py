"""What every study does: samples, fits, tables, figures, pages."""
