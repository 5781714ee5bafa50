"""Faces: CelebA, drawn faces with the same attributes, and the views of section 10.

celeba.py, celeba_files.py, celeba_lists.py   CelebA, its files as they are packed, its lists
faces.py, drawing.py         drawn faces
vision.py, landmarks.py      six views of a face (Figures 7 to 10), and where a face is
pictures.py, image_files.py  any image file to 64x64 bytes
"""
