"""A perceptron of dense layers laid out in one buffer: forward and backward."""
