"""From the plan of a mixture to a trained model and the folder that transformers runs."""
