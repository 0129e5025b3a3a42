"""What can be known of a build before its work: `vlmill check` with its estimate, `vlmill preview`, and forecasts."""
