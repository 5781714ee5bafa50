"""MNIST and the data sets derived from it.

mnist.py        MNIST, FashionMNIST and BinaryMNIST, read from raw files in torchvision's layout
known_files.py  digests of the published raw files
binarisation.py bits of images, fixed or drawn every epoch
multi_mnist.py  several digits with a text
mnist19.py      one digit with 18 computed attributes
digits.py       scikit-learn's digits, no files needed
"""
