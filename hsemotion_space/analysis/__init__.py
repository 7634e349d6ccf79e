"""Read off a finished analysis: disagreement, image quality, reliability, saliency, sampling, export."""
