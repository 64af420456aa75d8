"""Pages that show a store, training runs and features: one HTML file each, without a network."""
