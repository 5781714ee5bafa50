"""The orchestration of sweeps: plan, run on Ray, track in MLflow, report. Ray and MLflow live here, one module each."""
