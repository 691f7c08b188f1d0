"""One trial: trains a support vector machine with the given parameters and prints its validation accuracy.

An ordinary Katib trial: parameters come in as arguments, the objective goes out on standard output.
"""

import argparse

import numpy as np
from sklearn.svm import SVC

parser = argparse.ArgumentParser()
parser.add_argument("--train", required=True, help="npz file with images (n, 64), pixels 0..16, and labels (n,)")
parser.add_argument("--valid", required=True, help="npz file of the same form")
parser.add_argument("--C", type=float, required=True, help="Inverse strength of the regularisation")
parser.add_argument("--gamma", type=float, required=True, help="Width of the kernel")
arguments = parser.parse_args()

train, valid = np.load(arguments.train), np.load(arguments.valid)
model = SVC(C=arguments.C, gamma=arguments.gamma).fit(train["images"] / 16.0, train["labels"])
print(f"accuracy={model.score(valid['images'] / 16.0, valid['labels']):.6f}")
