"""The mathematics: pure functions of arrays that know no network, no data set and no config."""
