"""Published mixtures, one YAML file each, and the import of others."""
