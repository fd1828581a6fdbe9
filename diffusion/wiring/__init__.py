"""What `build` is made of: the sections of a config, the facts of the data, the experiment, how it is drawn from."""
