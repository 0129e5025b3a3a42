"""`vlmill ablate`: variants of a recipe, trained with several seeds and compared with one of them.

spec      one YAML file -> the recipe of every training
runs      folders: one for the data of all that share them, one run for each variant and seed
plan      what is about to be trained, and which differences it could show (power.py)
paired    the differences, paired over held-out samples and seeds, with intervals and corrected p-values
report    trained runs -> ablation.json, a table, a plot (plot.py)

DIR/data/<digest>/            a build for each curation and mixtures that variants ask for; equal files are one file
DIR/<variant>/<seed>/         a run as `vlmill train` knows it, its shards and mixtures linked from there
DIR/ablation.json, .svg, .html
"""
