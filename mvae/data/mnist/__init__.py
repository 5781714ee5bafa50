"""MNIST and what is made of it.

mnist.py        MNIST, FashionMNIST and BinaryMNIST, from raw files in torchvision's layout
known_files.py  digests of the published raw files
binarisation.py bits of images, fixed or drawn anew each epoch
multi_mnist.py, mnist19.py   several digits with a text; the image with 18 computed attributes
digits.py       scikit-learn's digits, embedded
"""
