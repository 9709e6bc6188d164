"""Reports: pages, figures and tables."""
