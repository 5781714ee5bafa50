"""All measurements on a GPU in one command: throughput of the models, then cells of Table 4 while time is left.

Here    benchmarks/gpu --pack .gpu-pack               packs data and trials into a folder of about 41 MiB
There   benchmarks/gpu --out OUT                      uses .gpu-pack, ends within 9 minutes
Again   benchmarks/gpu --out OUT --continue-from gpu-results.json
                                                      runs only the parts that are still missing
Here    benchmarks/gpu --take gpu-results.json --storage runs --name main
                                                      turns the cells into result files for every report

(`python -m benchmarks.gpu_runs` is the same command.) The GPU machine needs Python, torch, numpy, pyarrow and Pillow,
but not Ray, MLflow or pydantic. The pack contains the trials with the same keys as in every sweep. Without a GPU the
same command runs on the CPU and says what it skips.

OUT/gpu-results.json, rewritten after every part, contains:

machine      processor, GPU, versions
throughput   images per second for each model and each way of running steps, with a batch of 100 and all three terms.
             Eager steps run kernel by kernel, compiled ones through torch.compile. Graphed steps are recorded, as the
             training loop does on a GPU. These three include making the batch. Replayed repeats one recorded step and
             makes no batch, so its speed is an upper bound.
lockstep     M models of the MNIST networks trained as one, with stacked parameters: images per second of all M models
cells        results in the form of result files: key, measure, trial, metrics, provenance, history
skipped      skipped parts with the reasons
"""
