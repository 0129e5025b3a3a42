"""vlmill: from raw vision-language data to training mixtures, their statistics, and a compact model."""
