"""Runs all measurements on a GPU: first the speed of training steps, then cells of Table 4 until the time is up.

On the machine with the data sets:

    benchmarks/gpu --pack .gpu-pack         packs data and trials into a folder of about 41 MiB

On the GPU machine:

    benchmarks/gpu --out OUT                uses .gpu-pack, and ends within 9 minutes
    benchmarks/gpu --out OUT --continue-from gpu-results.json
                                            runs only the parts that gpu-results.json does not contain yet

Again on the machine with the data sets:

    benchmarks/gpu --take gpu-results.json --storage runs --name main
                                            writes the cells as result files, which every report reads

(`python -m benchmarks.gpu_runs` is the same command.) The GPU machine needs Python, torch, numpy, pyarrow and Pillow,
but not Ray, MLflow or pydantic. The packed trials have the same keys as in a sweep. Without a GPU, the command runs on
the CPU and lists the parts that it skips.

The command rewrites OUT/gpu-results.json after every part. The file contains:

machine      processor, GPU, versions
throughput   images per second for each model and each way of running steps, with a batch of 100 and all ELBO terms
lockstep     images per second of M models that are trained as one model with stacked parameters (MNIST networks)
cells        results in the form of result files: key, measure, trial, metrics, provenance, history
skipped      skipped parts and the reasons

Ways of running steps:

eager        launches the kernels one by one
compiled     compiles the networks with torch.compile
graphed      records steps as CUDA graphs, as the training loop does on a GPU
replayed     repeats one recorded step without making batches, so its speed is an upper bound
"""
