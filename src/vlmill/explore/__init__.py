"""`vlmill explore DIR`: a run in the browser, served on this machine alone. It changes nothing in the run.

    tables       partitions as far as they are there
    columns      columns of numbers as Arrow files that are mapped into memory
    facts        a partition's tables -> what is known of each sample and image, as columns
    index        those of a whole run, in a folder of the user's cache; made when the run is first explored
    crossfilter  the index -> which samples fit, and histograms that filter each other
    find         words and vectors -> samples
    samples      numbers of samples -> what a page shows of them
    card         one sample: nodes, verdicts, values; trainer_view: as the trainer sees it
    bounds       the bounds of a recipe that a slider moves
    critical     for each sample and image the value at which a bound loses it
    thresholds   those -> counts and samples on both sides of a bound; the change as a recipe
    duplicates   verdicts of dedupe -> clusters, pairs, differences of texts
    mixing       a stage's mixture with other shares, solved
    overview     what a run is, in figures
    building     how far a build and a training are
    guard        who is answered: token, host, origin, methods; what answers may do
    state        the run that is shown, its index made in the background
    answers      what is answered; app: at which address, and the server
    static/      the page: HTML, style sheets and modules of JavaScript as they are written

`pipeline/cli/explore.py` is the command. The page asks the server for JSON and pictures and is sent no code of a run:
texts of data are only ever set as text.
"""
