"""Results as one self-contained page: the finding, times, figures with captions, pictures, provenance."""
