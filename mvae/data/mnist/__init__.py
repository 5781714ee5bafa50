"""MNIST and what is made of it: digits (scikit-learn's), FashionMNIST, binary MNIST, MultiMNIST, mnist19."""
