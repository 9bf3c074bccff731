"""The features of all images of a dataset, to be searched: by a picture, for copies, for outliers.

index = selftaught.Index.of("runs/simclr-photos", "photos/", "runs/index-photos")
print(index.query("a.jpg", k=5))
print(index.duplicates())
print(index.outliers())
"""
