"""Data sets of faces: CelebA, drawn faces with the same attributes, and the six views of section 10.

celeba.py                    CelebA
celeba_files.py              finds and reads CelebA's files, unpacked or zipped
celeba_lists.py              reads CelebA's lists of attributes and splits
faces.py, drawing.py         drawn faces
vision.py                    six views of a face (Figures 7 to 10)
landmarks.py                 edges and landmarks of a face
pictures.py, image_files.py  conversion of any image file to 64x64 pixels
"""
