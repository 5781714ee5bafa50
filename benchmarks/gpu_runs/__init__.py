"""All that needs a GPU, in one command: throughput of the models, and cells of Table 4 as far as the time goes.

Here    benchmarks/gpu --pack .gpu-pack               data and trials into a folder of about 41 MiB
There   benchmarks/gpu --out OUT                      takes .gpu-pack, ends within 9 minutes
Again   benchmarks/gpu --out OUT --continue-from gpu-results.json
                                                      does what is still missing
Here    benchmarks/gpu --take gpu-results.json --storage runs --name main
                                                      the cells become result files, which any report then finds

(`python -m benchmarks.gpu_runs` is the same.) The GPU's machine needs Python, torch, numpy, pyarrow and Pillow; neither
Ray, MLflow nor pydantic: the trials travel in the pack, with the keys that they have in every sweep. Without a GPU the
same command runs on the processor and says what it leaves out.

OUT/gpu-results.json, written again after every part:

machine      processor, GPU, versions
throughput   per model and way of running: samples a second of the image stream (batch 100, all three terms), whole step
             with its batch made: eager (kernel by kernel), compiled, graphed (steps recorded, as the training loop is
             on a GPU), replayed (a record alone: the upper end)
lockstep     M models of the MNIST networks trained as one, by stacked parameters: samples a second of all together
cells        results in the form of result files: key, measure, trial, metrics, provenance, history
skipped      what was left out, and why
"""
