"""What follows from verdicts: which samples, nodes and images are kept, and the counts that must balance."""
