"""All measurements on a GPU in one command: throughput of the models, then cells of Table 4 while time is left.

Here    benchmarks/gpu --pack .gpu-pack               packs data and trials into a folder of about 41 MiB
There   benchmarks/gpu --out OUT                      uses .gpu-pack, ends within 9 minutes
Again   benchmarks/gpu --out OUT --continue-from gpu-results.json
                                                      does what is still missing
Here    benchmarks/gpu --take gpu-results.json --storage runs --name main
                                                      turns the cells into result files, which every report then finds

(`python -m benchmarks.gpu_runs` is the same.) The GPU's machine needs Python, torch, numpy, pyarrow and Pillow, but
neither Ray, MLflow nor pydantic: the pack contains the trials with the keys that they have in every sweep. Without a
GPU the same command runs on the CPU and says what it skips.

OUT/gpu-results.json, rewritten after every part, contains:

machine      processor, GPU, versions
throughput   images per second for each model and way of running a whole step, with its batch made (batch 100, all three
             terms): eager (kernel by kernel), compiled, graphed (steps recorded, as the training loop does on a GPU),
             replayed (only a recorded step, an upper bound)
lockstep     M models of the MNIST networks trained as one, with stacked parameters: images per second of all together
cells        results in the form of result files: key, measure, trial, metrics, provenance, history
skipped      skipped parts with the reasons
"""
