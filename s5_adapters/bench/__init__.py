"""One model, one environment, three ecosystems: measure, tabulate, plot."""
