import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kfp  # noqa: F401  (whole: what is tested imports only its messages, and would leave it half made for others)
