"""Generalization · vanishing gradients (tag 3096558): inputs that are silent in training and switch on at test, and few
images (`tasks`), the part of the weights that gets no gradient (`null_space`), weights that get nothing but noise
(`noise`), and the chapter's protocol (`study`)."""
