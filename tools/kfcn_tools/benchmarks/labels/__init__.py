"""What few labels give, measured on a data set with whole labels.

The flags that a table was made with stand above it in docs/RESULTS.md.

    python -m kfcn_tools.benchmarks.labels sparse camvid CamVid --out sparse-camvid
    python -m kfcn_tools.benchmarks.labels unlabelled camvid CamVid --out unlabelled-camvid
    python -m kfcn_tools.benchmarks.labels next camvid CamVid --out next-camvid
    python -m kfcn_tools.benchmarks.labels suspects camvid CamVid --out suspects-camvid
    python -m kfcn_tools.results sparse-camvid ... --store docs/results.json --out docs/RESULTS.md

Every training of a measurement takes as many steps, and the net that is measured is the running
average after the last one. What was measured lies in results.json of `--out`; started again, it
goes on, also with more seeds.

- `sparse`: points or scribbles in the place of whole training labels, with and without the gated
  CRF loss;
- `unlabelled`: a part of the training labels, with and without the other pictures as unlabelled;
- `next`: rounds of pictures that `kfcn-data next` would choose, against random ones;
- `suspects`: which errors, planted in the training labels, `kfcn-data suspects` finds.
"""
