"""The former name of `mvae.data.faces.vision`: models that earlier releases logged to MLflow are pickled with it."""

from mvae.data.faces.vision import grayscale, obscured, watermarked

__all__ = ["grayscale", "obscured", "watermarked"]
