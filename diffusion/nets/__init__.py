"""Networks in Flax NNX, used functionally: a network is `init(key) -> params` and `apply(params, ...)`."""
